"""Ranks by value and quality, against what is crowded."""

from __future__ import annotations

from coordinator.scaffolds.ranks.tracker import TrackerBase


class CheapAndGood(TrackerBase):
    """Weights that somebody believes in."""

    def score_of(self, row: dict[str, float]) -> float:
        """Value and quality for it, crowding against it."""
        return (
            0.4 * row.get("value", 0.5) + 0.4 * row.get("quality", 0.5) + 0.2 * (1 - row.get("crowding", 0.5))
        )
