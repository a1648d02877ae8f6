"""A constant width: always the same normal density, whatever the market does. The yardstick."""

from __future__ import annotations

from typing import Any

from coordinator.scaffolds.density.tracker import TrackerBase, mixture

SCALE = 6.0


class ConstantWidth(TrackerBase):
    """Says a change of about 6 basis points a minute."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """The same for each step."""
        return {"steps": [mixture((1.0, 0.0, SCALE))] * (horizon_seconds // step_seconds)}
