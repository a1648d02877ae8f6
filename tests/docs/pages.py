"""The pages as the tests read them: their blocks of code, and what the comments around a block say of it.

| comment | where | means |
|---|---|---|
| `not run: REASON` | before a block | it is not run, and why |
| `blocks not run: REASON` | anywhere on a page | the same for every block of the page that says nothing else |
| `in another terminal, until: WORDS` | before | it runs on, and what follows waits until it has said WORDS |
| `until it shows: WORDS` | before | it is run again and again until it shows WORDS: something has to happen first |
| `exit code: N` | before | it ends with N, not 0 |
| `file: PATH` | before | the block is what stands in this file |
| `shows: WORDS; A\\|B` | after | the block before has shown WORDS, and A or B |
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = {
    DOCS / "contract-fields.md",
    *(DOCS / "reference").glob("*.md"),
    *(DOCS / "runbook").glob("*.md"),
}
"""Made of the code and compared with it; their blocks are signatures, stored events, a diagram, and what a runbook says."""
PAGES = sorted(
    {*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"} - GENERATED
)
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENTS = re.compile(r"((?:<!--[^>]*-->\s*)*)\Z")
_AFTER = re.compile(r"\A\s*<!-- shows: (.*?) -->")
_COMMENT = re.compile(r"<!-- (.*?) -->", re.DOTALL)
_INDENTED = re.compile(r"(?:\A|\n\n)((?: {4}\S.*\n?|\n(?= {4}\S))+)")
_HALF_INDENTED = re.compile(r"^(?![-*\d>|\s]).+\n( {4}\S.*)", re.MULTILINE)
"""A paragraph whose next line is indented: a block that lost the indentation of its first line, shown as running text."""


class Block(msgspec.Struct):
    """A block of code. `said` is what the comments before it say, by their word."""

    language: str
    text: str
    said: dict[str, str]
    shows: tuple[str, ...] = ()


def name_of(page: Path) -> str:
    """How a test calls a page."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block, in order."""
    text = page.read_text()
    blocks = []
    for match in _FENCE.finditer(text):
        before = _COMMENTS.search(text[: match.start()])
        words_by_name = dict(_word(comment) for comment in _COMMENT.findall(before[1] if before else ""))
        words_by_name.pop("shows", None)
        after = _AFTER.match(text[match.end() :])
        shows = tuple(part.strip() for part in after[1].split(";")) if after else ()
        blocks.append(Block(match[1], match[2], words_by_name, shows))
    return blocks


def indented_blocks_of(page: Path) -> list[str]:
    """Blocks that are code by their indentation alone."""
    text = _FENCE.sub("", page.read_text())
    return [match[1] for pattern in (_INDENTED, _HALF_INDENTED) for match in pattern.finditer(text)]


def reason_of(page: Path) -> str:
    """Why the blocks of a page are not run; nothing where the page does not say it."""
    return next(
        (text for word, text in map(_word, _COMMENT.findall(page.read_text())) if word == "blocks not run"),
        "",
    )


def _word(comment: str) -> tuple[str, str]:
    word, _, text = comment.partition(":")
    return word.strip(), " ".join(text.split())
