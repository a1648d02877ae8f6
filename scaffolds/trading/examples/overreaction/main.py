"""Bets against large moves: what fell much within half an hour may come back, and what rose much too."""

from __future__ import annotations

from coordinator.scaffolds.trading.tracker import TrackerBase

WINDOW = 30
LARGE, BACK = 0.006, 0.001


class Overreaction(TrackerBase):
    """In after a large move, out when the price is back near its average."""

    def __init__(self) -> None:
        super().__init__()
        self._signals: dict[str, float] = {}

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Against the distance from the average, sized by it."""
        closes = self.closes(subject)[-WINDOW:]
        held = self._signals.get(subject, 0.0)
        if len(closes) == WINDOW:
            distance = closes[-1] * WINDOW / sum(closes) - 1.0
            if abs(distance) > LARGE and held == 0.0:
                held = -1.0 if distance > 0 else 1.0
            elif held * distance > -BACK:
                held = 0.0
        self._signals[subject] = held
        return {"signal": held}
