"""The page of all that a contract can say, in Markdown: `docs/contract-fields.md`. Pure.

It is made of the docstrings that `coordinator contract fields` prints, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.streams.contract.fields import FieldDoc

HEAD = """\
# What a contract can say

Every field of a `CrunchContract` with its type, its default and what it means; then what its functions are given and
may give, and the functions that a contract may name. [Writing a contract](writing-a-contract.md) is the guide.

This page is made of the docstrings of the source: `coordinator contract fields --markdown > docs/contract-fields.md`.
"""
GIVEN = """\
## What functions are given and may give

Import them from `coordinator.streams.contract`. Times are milliseconds since the epoch, arrays are numpy's.
"""
NAMED = """\
## Functions that a contract may name

As `build_emission`, or as the `rule` of a `Pool`.
"""


def page(fields: Iterable[FieldDoc], given_fields: Iterable[FieldDoc], named: Iterable[FieldDoc]) -> str:
    """The whole page."""
    sections = [
        HEAD,
        "## Fields\n",
        *map(_entry, fields),
        GIVEN,
        *map(_entry, given_fields),
        NAMED,
        *map(_entry, named),
    ]
    return "\n".join(sections)


def _entry(field: FieldDoc) -> str:
    function = "(" in field.type and field.type.startswith(f"{field.path.rpartition('.')[2]}(")
    kind = "" if function or field.type == "class" else f": {field.type}"
    code = field.type if function else f"{field.path}{kind}{f' = {field.default}' if field.default else ''}"
    level = "#" * min(6, 3 + field.path.count("."))
    paragraphs = "\n\n".join(map(_paragraph, filter(None, field.doc.split("\n\n"))))
    return f"{level} {field.path}\n\n```python\n{code}\n```\n\n{paragraphs}\n"


def _paragraph(text: str) -> str:
    """A paragraph with an indented line is an example or a signature, and keeps its lines."""
    lines = text.splitlines()
    if not any(line.startswith(" ") for line in lines):
        return text
    head = [] if lines[0].startswith(" ") else [lines.pop(0), ""]
    return "\n".join([*head, "```text", *(line.removeprefix("    ") for line in lines), "```"])
