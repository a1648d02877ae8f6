"""Goes with the trend of two hours, and changes its mind seldom: a fee is worth many minutes."""

from __future__ import annotations

from coordinator.scaffolds.trading.tracker import TrackerBase

SHORT, LONG = 20, 120
TURNED = 0.0015


class TrendHolder(TrackerBase):
    """Long or short by two averages, with a band in which the position stays."""

    def __init__(self) -> None:
        super().__init__()
        self._signals: dict[str, float] = {}

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Turns only where the short average has left the long one by more than a fee costs."""
        closes = self.closes(subject)
        if len(closes) >= LONG:
            distance = mean(closes[-SHORT:]) / mean(closes[-LONG:]) - 1.0
            if abs(distance) > TURNED:
                self._signals[subject] = 1.0 if distance > 0 else -1.0
        return {"signal": self._signals.get(subject, 0.0)}


def mean(values: list[float]) -> float:
    """Of values that are not empty."""
    return sum(values) / len(values)
