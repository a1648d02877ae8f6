"""How much of a history one question may look at: what is rare, or nowhere, would else be looked for in all of it."""

from __future__ import annotations

from typing import Any


class Look:
    """So many looks, beside a first one that is free: a question goes on even from where the last one stopped.

    When they are used up, `stopped_at` is the place behind which the next question goes on.
    """

    __slots__ = ("left", "stopped_at")

    def __init__(self, most: int) -> None:
        self.left = most
        self.stopped_at: Any = None

    def at(self, *place: Any) -> bool:
        """Take a look; False when there is none left, and then everything up to `place` was looked at."""
        if self.left <= 0:
            self.stopped_at = place
            return False
        self.left -= 1
        return True

    def costs(self, looks: int) -> None:
        """The look that was taken is worth so many more."""
        self.left -= looks
