"""A reason as it may stand in an event: short, and text that can be written.

Reasons quote what a model, an author's function or a program outside said. Python holds halves of letters
(lone surrogates, which JSON can spell) that no JSON writer takes: one of them in a reason would stop the
stage that records it.
"""

from __future__ import annotations

REASON_CHARS = 300


def as_reason(text: str, chars: int = REASON_CHARS) -> str:
    """The first `chars` characters of `text`, with a question mark for each half of a letter."""
    return text[:chars].encode("utf-8", "replace").decode()
