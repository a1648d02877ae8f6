"""Two kinds of minutes: most are calm, a few are not. A narrow normal density mixed with a wide one has heavy tails."""

from __future__ import annotations

import math
from typing import Any

from coordinator.scaffolds.density.tracker import TrackerBase, mixture

STORMS = 0.15
SCALE_UNKNOWN = 6.0


class CalmAndStorm(TrackerBase):
    """The narrow part is as wide as the calm minutes of the window were, the wide one as the others."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """The same mixture for each step."""
        sizes = sorted(map(abs, self.changes(subject)))
        storms = round(STORMS * len(sizes))
        calm, wild = root_mean_square(sizes[: len(sizes) - storms]), root_mean_square(sizes[-storms:])
        grown = math.sqrt(step_seconds / 60.0)
        step = mixture((1.0 - STORMS, 0.0, calm * grown), (STORMS, 0.0, wild * grown))
        return {"steps": [step] * (horizon_seconds // step_seconds)}


def root_mean_square(values: list[float]) -> float:
    """Of no values, a usual one."""
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else SCALE_UNKNOWN
