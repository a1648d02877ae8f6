"""Markdown out of values: cells, tables, code. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MADE = "This page is generated from the code by `make docs-reference`; a test compares the two.\n"


def cell(text: str) -> str:
    """A text as it stands in a table: on one line, and no bar ends it."""
    return " ".join(text.split()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells may hold Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """`text` as code; nothing where there is none."""
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Prose of a docstring: no character of it is markup but what stands in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*\[\]])", r"\\\1", part) for part in parts)
