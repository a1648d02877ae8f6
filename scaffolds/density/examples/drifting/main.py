"""A density with a direction: the drift of the window goes on, and fades from step to step."""

from __future__ import annotations

import math
from statistics import fmean, pstdev
from typing import Any

from coordinator.scaffolds.density.tracker import TrackerBase, mixture

KEPT = 0.3
SCALE_UNKNOWN = 6.0


class Drifting(TrackerBase):
    """Leans a little to where the last half hour went."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """The first step leans most."""
        recent = self.changes(subject)[-30:]
        minutes = step_seconds / 60.0
        drift = fmean(recent) * minutes if recent else 0.0
        scale = (pstdev(recent) if len(recent) > 1 else SCALE_UNKNOWN) * math.sqrt(minutes)
        steps = range(horizon_seconds // step_seconds)
        return {"steps": [mixture((1.0, drift * KEPT ** (step + 1), scale)) for step in steps]}
