"""`llms.txt`: the map of the documentation for a reader that is a language model, out of the book's contents.

It stands at the root of the repository and in the book, beside the Markdown of each page.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAD = """\
# Coordinator node

> A node that runs a live prediction challenge (a crunch) as a log of events on Kafka: feeds in, scored predictions, a
> leaderboard and an exact emission out. Anyone who has the log can compute everything again.

AGENTS.md says how to build and test, where things are, and what must not be touched. Every page is Markdown.
"""


def text(prefix: str = "docs/") -> str:
    """The whole file; `prefix` stands before the path of each page."""
    contents = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    parts = [HEAD]
    for entry in contents:
        ((title, inside),) = entry.items()
        pages = [(title, inside)] if isinstance(inside, str) else list(_pages(inside))
        parts.append(f"## {title}\n")
        parts.append("\n".join(f"- [{name}]({prefix}{path}): {about(path)}" for name, path in pages) + "\n")
    return "\n".join(parts)


def about(path: str) -> str:
    """The first sentence of a page."""
    prose = re.sub(r"<!--.*?-->", "", (ROOT / "docs" / path).read_text(), flags=re.DOTALL)
    paragraphs = [
        text.strip()
        for text in prose.split("\n\n")
        if text.strip() and not text.strip().startswith(("#", "!", "|"))
    ]
    first = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraphs[0].split()))
    sentence = first.partition(". ")[0].rstrip(".:")
    return sentence if sentence.endswith("?") else f"{sentence}."


def _pages(inside: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for entry in inside:
        yield from entry.items()
