"""Bounds how much of a history one question may read.

Without a bound, a question about something rare, or about something that does not exist, would read all of it.
"""

from __future__ import annotations

from typing import Any


class Look:
    """A budget of `most` reads.

    When it is used up, `stopped_at` is the last place that was read: the next question goes on behind it.
    """

    __slots__ = ("left", "stopped_at")

    def __init__(self, most: int) -> None:
        self.left = most
        self.stopped_at: Any = None

    def at(self, *place: Any) -> bool:
        """Spend one read on `place`; False when none is left. Everything up to `stopped_at` was read then."""
        if self.left <= 0:
            self.stopped_at = place
            return False
        self.left -= 1
        return True

    def costs(self, looks: int) -> None:
        """Spend `looks` more: the last read cost more than one."""
        self.left -= looks
