"""Rides a breakout: long above the highest close of two hours, short below the lowest, out in between after a while."""

from __future__ import annotations

from coordinator.scaffolds.trading.tracker import TrackerBase

WINDOW = 119
HELD_MINUTES = 60


class BreakoutRider(TrackerBase):
    """Holds for an hour after the last breakout."""

    def __init__(self) -> None:
        super().__init__()
        self._signals: dict[str, float] = {}
        self._left: dict[str, int] = {}

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Half of the stake with the breakout."""
        closes = self.closes(subject)
        left = self._left.get(subject, 0) - 1
        signal = self._signals.get(subject, 0.0) if left > 0 else 0.0
        if len(closes) > WINDOW:
            before = closes[-WINDOW - 1 : -1]
            if closes[-1] > max(before):
                signal, left = 0.5, HELD_MINUTES
            elif closes[-1] < min(before):
                signal, left = -0.5, HELD_MINUTES
        self._signals[subject], self._left[subject] = signal, left
        return {"signal": signal}
