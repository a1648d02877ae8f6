"""Trend following: a fast average above a slow one means up.

Averages are exponential over closes; their distance counts in units of the usual candle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from coordinator.scaffolds.challenge.tracker import TrackerBase

FAST, SLOW = 8, 34
CONFIDENCE_MAX = 0.2


class TrendFollowing(TrackerBase):
    """Goes with the distance between two averages."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """The distance of the averages relative to the usual return, squashed."""
        closes, returns = self.closes(subject), self.returns(subject)
        usual = sum(map(abs, returns)) / len(returns) if returns else 0.0
        if usual == 0.0:
            return {"value": 0.0}
        distance = average(closes, FAST) / average(closes, SLOW) - 1.0
        return {"value": CONFIDENCE_MAX * math.tanh(distance / (4.0 * usual))}


def average(values: Sequence[float], span: int) -> float:
    """Exponential moving average of `values` (not empty), oldest first."""
    weight = 2.0 / (span + 1.0)
    result = values[0]
    for value in values[1:]:
        result += weight * (value - result)
    return result
