"""Bounds how many rows of a history one question may read.

Without a bound, a question about something rare, or about something that does not exist, would read all rows.
"""

from __future__ import annotations

from typing import Any


class ReadBudget:
    """A budget of `reads_max` reads.

    When it is used up, `stopped_at` is the last place that was read: the next question continues after it.
    """

    __slots__ = ("left", "stopped_at")

    def __init__(self, reads_max: int) -> None:
        self.left = reads_max
        self.stopped_at: Any = None

    def at(self, *place: Any) -> bool:
        """Spend one read; `place` is the last place read until now. False if no read is left."""
        if self.left <= 0:
            self.stopped_at = place
            return False
        self.left -= 1
        return True

    def costs(self, looks: int) -> None:
        """Spend `looks` more reads, if the last one cost more than one."""
        self.left -= looks
