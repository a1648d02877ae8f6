"""Mean reverting: a price far from its recent mean comes back.

The distance is measured in standard deviations of the last half hour of closes.
"""

from __future__ import annotations

import math
from statistics import fmean, pstdev

from coordinator.scaffolds.challenge.tracker import TrackerBase

LOOKBACK = 30
CONFIDENCE_MAX = 0.15


class MeanReverting(TrackerBase):
    """Leans back to the mean, the more so the further away."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Minus the z-score of the last close, squashed."""
        closes = self.closes(subject)[-LOOKBACK:]
        spread = pstdev(closes) if len(closes) > 1 else 0.0
        if spread == 0.0:
            return {"value": 0.0}
        z = (closes[-1] - fmean(closes)) / spread
        return {"value": -CONFIDENCE_MAX * math.tanh(z / 2.0)}
