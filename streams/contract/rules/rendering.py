"""Rules as Markdown, and as HTML without a script or a style of its own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from coordinator.streams.contract.rules.text_parts import Code, Rows, Said, Section, Text

_CODE = re.compile(r"`([^`]+)`")


def as_markdown(title: str, about: str, sections: Iterable[Section]) -> str:
    """One page, which any Markdown shows."""
    parts = [f"# {title}", about]
    for section in sections:
        parts += [f"## {section.title}", *(_markdown(block) for block in section.said)]
    return "\n\n".join(parts) + "\n"


def as_html(about: str, sections: Iterable[Section]) -> str:
    """The sections as HTML, to stand within a page. All text is escaped."""
    parts = [f"<p>{as_prose(about)}</p>"]
    for section in sections:
        html = "\n".join(_html(block) for block in section.said)
        parts.append(f"<section><h2>{escape(section.title)}</h2>\n{html}\n</section>")
    return "\n".join(parts)


def _markdown(block: Said) -> str:
    match block:
        case Text(text=text):
            return text
        case Code(text=text):
            fence = "````" if "```" in text else "```"
            return f"{fence}python\n{text}\n{fence}"
        case Rows(heads=heads, rows=rows):
            lines = [
                heads,
                tuple("---" for _ in heads),
                *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows),
            ]
            return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _html(block: Said) -> str:
    match block:
        case Text(text=text):
            return f"<p>{as_prose(text)}</p>"
        case Code(text=text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Rows(heads=heads, rows=rows):
            head = "".join(f"<th>{escape(head_text)}</th>" for head_text in heads)
            body = "".join(
                f"<tr>{''.join(f'<td>{as_prose(cell)}</td>' for cell in row)}</tr>" for row in rows
            )
            return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def as_prose(text: str) -> str:
    """A paragraph as HTML: escaped, and what stands between backquotes as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))
