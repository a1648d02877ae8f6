"""Ranks by momentum alone, and lets quality decide between equals."""

from __future__ import annotations

from coordinator.scaffolds.ranks.tracker import TrackerBase


class FirstFeature(TrackerBase):
    """What rose goes on rising."""

    def score_of(self, row: dict[str, float]) -> float:
        """0.5 where the table has no such column."""
        return 0.9 * row.get("momentum", 0.5) + 0.1 * row.get("quality", 0.5)
