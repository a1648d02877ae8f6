"""Makes text from outside safe for an event, a log and a terminal: short, and without characters that do harm.

Names and reasons quote what a model, a participant, an author's function or another program wrote. A Python string may
hold lone surrogates (JSON can spell them), which no JSON writer accepts: one of them would stop the stage that records
it. An escape sequence moves a terminal's cursor, sets its title, or hides text. Characters that change the direction of
writing make one name look like another.
"""

from __future__ import annotations

import unicodedata

REASON_CHARS = 300
NAME_CHARS = 100
QUOTED = "; quoted: "
"""In a reason, before the words of a contract's own check or of what a model sent: these may tell the answer."""
TOLD_LATER = " (the rest is told when answers are closed)"

_REPLACED = frozenset(
    {"Cc", "Cs", "Zl", "Zp"}
)  # control characters, surrogates, separators of lines and paragraphs
_DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with a question mark in place of each control character, and a space in place of tabs and line ends.

    With `lines`, tabs and line feeds stay.
    """
    if text.isprintable():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def as_reason(text: str, chars: int = REASON_CHARS) -> str:
    """The first `chars` characters of `text`, printable."""
    return printable(text[:chars])


def without_quotes(reason: str) -> str:
    """Why an answer is no valid one, without what may tell the answer. Only for the reason of a FAILED answer."""
    outcome = reason.partition(": ")[0]
    ours = (
        reason.partition(QUOTED)[0] if outcome == "BAD_OUTPUT" else outcome
    )  # what a model raised is all its own
    return reason if ours == reason else ours + TOLD_LATER


def as_name(text: str, chars: int = NAME_CHARS) -> str:
    """A name of a model, a participant or a key: one printable line of at most `chars` characters."""
    return printable(text[:chars]).strip()


def _shown(char: str, *, lines: bool) -> str:
    if char in "\t\n\r":
        return char if lines and char != "\r" else " "
    return "?" if char in _DIRECTIONS or unicodedata.category(char) in _REPLACED else char
