"""Ranks by the mean of all features: the yardstick."""

from __future__ import annotations

from statistics import fmean

from coordinator.scaffolds.ranks.tracker import TrackerBase


class MeanOfFeatures(TrackerBase):
    """Every feature counts the same."""

    def score_of(self, row: dict[str, float]) -> float:
        """Their mean."""
        return fmean(row.values())
