"""A normal density as wide as the market was of late: an exponential average of squared changes."""

from __future__ import annotations

import math
from typing import Any

from coordinator.scaffolds.density.tracker import TrackerBase, mixture

HALF_LIFE = 20.0
SCALE_UNKNOWN = 6.0


class EwmaGaussian(TrackerBase):
    """Trusts the last twenty minutes most."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """As wide for each step, without a direction."""
        minutes = step_seconds / 60.0
        scale = recent_scale(self.changes(subject)) * math.sqrt(minutes)
        return {"steps": [mixture((1.0, 0.0, scale))] * (horizon_seconds // step_seconds)}


def recent_scale(changes: list[float]) -> float:
    """The root of the weighted mean square; newer changes weigh more."""
    if not changes:
        return SCALE_UNKNOWN
    weight, total, squares = 1.0, 0.0, 0.0
    for change in reversed(changes):
        total, squares = total + weight, squares + weight * change * change
        weight *= 0.5 ** (1.0 / HALF_LIFE)
    return math.sqrt(squares / total)
