"""Small optimist: markets rise a little more often than they fall, always, says this one.

The yardstick for the others: a model that looks at the data should beat one that does not.
"""

from __future__ import annotations

from coordinator.scaffolds.challenge.tracker import TrackerBase

CONFIDENCE = 0.02


class SmallOptimist(TrackerBase):
    """Always the same small number."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """A constant."""
        return {"value": CONFIDENCE}
