"""Contrarian: after a large candle, expect a small step back.

Looks at one candle only, measured against the size of the usual one.
"""

from __future__ import annotations

import math

from coordinator.scaffolds.challenge.tracker import TrackerBase

CONFIDENCE_MAX = 0.08


class ContrarianLastCandle(TrackerBase):
    """Bets a little against the last candle."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Minus the last return in units of the mean absolute return, squashed."""
        returns = self.returns(subject)
        usual = sum(map(abs, returns)) / len(returns) if returns else 0.0
        if usual == 0.0:
            return {"value": 0.0}
        return {"value": -CONFIDENCE_MAX * math.tanh(returns[-1] / (2.0 * usual))}
