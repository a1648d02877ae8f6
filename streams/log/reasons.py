"""Text of strangers as it may stand in an event, in a log and on a terminal: short, and harmless to write and to show.

Names and reasons quote what a model, a participant, an author's function or a program outside said. Python holds halves
of letters (lone surrogates, which JSON can spell) that no JSON writer takes: one of them would stop the stage that
records it. An escape sequence moves a terminal's cursor, sets its title, or hides what stands before it; signs that
turn the direction of writing make one name look like another.
"""

from __future__ import annotations

import unicodedata

REASON_CHARS = 300
NAME_CHARS = 100

_REPLACED = frozenset(
    {"Cc", "Cs", "Zl", "Zp"}
)  # controls, halves of letters, separators of lines and paragraphs
_TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with a question mark for each sign that is not to be shown but obeyed; a tab or a line's end is a space.

    With `lines`, tabs and the ends of lines stay.
    """
    if text.isprintable():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def as_reason(text: str, chars: int = REASON_CHARS) -> str:
    """The first `chars` characters of `text`, printable."""
    return printable(text[:chars])


def as_name(text: str, chars: int = NAME_CHARS) -> str:
    """A name of a model, a participant or a key: one printable line of at most `chars` characters."""
    return printable(text[:chars]).strip()


def _shown(char: str, *, lines: bool) -> str:
    if char in "\t\n\r":
        return char if lines and char != "\r" else " "
    return "?" if char in _TURNS or unicodedata.category(char) in _REPLACED else char
