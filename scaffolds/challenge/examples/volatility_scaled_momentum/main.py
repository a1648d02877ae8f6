"""Volatility scaled momentum: the last hour's move, believed less when the market is wild.

It also looks at the horizon: over a longer one the same momentum says less.
"""

from __future__ import annotations

import math
from statistics import pstdev

from coordinator.scaffolds.challenge.tracker import TrackerBase

LOOKBACK = 60
CANDLE_SECONDS = 60
CONFIDENCE_MAX = 0.12


class VolatilityScaledMomentum(TrackerBase):
    """The move over the lookback as a multiple of what chance would give."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Sum of returns over (deviation x sqrt(n)), faded with the square root of the horizon."""
        returns = self.returns(subject)[-LOOKBACK:]
        deviation = pstdev(returns) if len(returns) > 1 else 0.0
        if deviation == 0.0:
            return {"value": 0.0}
        momentum = sum(returns) / (deviation * math.sqrt(len(returns)))
        fading = math.sqrt(CANDLE_SECONDS / max(horizon_seconds, CANDLE_SECONDS))
        return {"value": CONFIDENCE_MAX * fading * math.tanh(momentum / 2.0)}
