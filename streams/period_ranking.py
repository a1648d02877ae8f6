"""A checkpoint period's totals per model, and the ranking that pays.

The key is the mean score over the whole period, a window as of the period's end, or a summary key
averaged by scored predictions: one key per model, an integer in units, ranked by `ranking.rank`.
"""

from __future__ import annotations

from decimal import Decimal

from coordinator.streams.envelope import Need
from coordinator.streams.events import RankedEntry, SnapshotTakenData, Terms
from coordinator.streams.ranking import rank
from coordinator.streams.units import mean_units

PERIOD_KEY = "period"
ENSEMBLE_PREFIX = "__ensemble_"
"""Ids of what a node made of several models: on no chain, and never paid."""


class ModelTotals:
    """What one model's snapshots of the period add up to."""

    __slots__ = (
        "absent_model",
        "failed_model",
        "last_end",
        "scored",
        "snapshots",
        "summaries",
        "sums",
        "windows",
    )

    def __init__(self) -> None:
        self.sums: dict[str, list[int]] = {}
        self.summaries: dict[str, list[int]] = {}
        self.windows: dict[str, int | None] = {}
        self.last_end = -1
        self.scored = self.failed_model = self.absent_model = self.snapshots = 0


class PeriodTotals:
    """One checkpoint period [start, end); `before` is where its first snapshot stands in the log."""

    __slots__ = ("before", "end", "models", "snapshot_count", "start", "tainted", "tainted_windows")

    def __init__(self, start: int, end: int, before: Need) -> None:
        self.start = start
        self.end = end
        self.before = before
        self.models: dict[str, ModelTotals] = {}
        self.snapshot_count = 0
        self.tainted = False
        self.tainted_windows: dict[str, int] = {}

    def add(self, data: SnapshotTakenData) -> None:
        """Take in one snapshot."""
        totals = self.models.setdefault(data.model_id, ModelTotals())
        self.snapshot_count += 1
        totals.snapshots += 1
        totals.scored += data.scored_count
        totals.failed_model += data.failed_count - data.failed_node_count
        totals.absent_model += data.absent_model_count
        for name, one in data.sums.items():
            total = totals.sums.setdefault(name, [0, 0])
            total[0] += one.sum_units
            total[1] += one.n
        for name, units in data.summary_units.items():
            total = totals.summaries.setdefault(name, [0, 0])
            total[0] += units * data.scored_count
            total[1] += data.scored_count
        if data.period_end >= totals.last_end:
            totals.last_end, totals.windows = data.period_end, data.windows_units
        self.tainted |= data.rehearsal
        for name in data.rehearsal_windows:
            self.tainted_windows[name] = max(self.tainted_windows.get(name, -1), data.period_end)

    def rehearsal(self, checkpoint_key: str) -> bool:
        """Did the ranking use any score of replayed time?"""
        return self.tainted or self.tainted_windows.get(checkpoint_key, -1) == self.end


def ranked_entries(totals: PeriodTotals, terms: Terms) -> tuple[list[RankedEntry], list[str]]:
    """The period's ranking in order, and the unranked model ids: never scored in the period, too often away, or
    an ensemble.
    """
    keys = [
        (model_id, None if model_id.startswith(ENSEMBLE_PREFIX) else _key(one, terms, totals.end))
        for model_id, one in totals.models.items()
    ]
    ranked, unranked = rank(keys, terms.ranking_direction)
    entries = [
        RankedEntry(
            model_id=model_id,
            rank=place,
            key_units=key,
            prediction_count=totals.models[model_id].scored,
            snapshot_count=totals.models[model_id].snapshots,
            result_summary_units=_summary(totals.models[model_id]),
        )
        for place, model_id, key in ranked
    ]
    return entries, unranked


def _key(one: ModelTotals, terms: Terms, period_end: int) -> int | None:
    # What was the node's fault counts neither way. As decimals: 0.07 * 100 is more than 7 in binary.
    asked = one.scored + one.failed_model + one.absent_model
    if one.scored == 0 or one.scored < Decimal(repr(terms.min_participation)) * asked:
        return None
    if terms.checkpoint_key == PERIOD_KEY:
        total = one.sums.get(terms.value_field)
        return mean_units(total[0], total[1]) if total else None
    if any(window.name == terms.checkpoint_key for window in terms.windows):
        return one.windows.get(terms.checkpoint_key) if one.last_end == period_end else None
    summary = one.summaries.get(terms.checkpoint_key)
    return mean_units(summary[0], summary[1]) if summary and summary[1] else None


def _summary(one: ModelTotals) -> dict[str, int]:
    """Means over the period per summed field, then the windows and the summary keys under their own names."""
    out = {name: mean_units(total[0], total[1]) for name, total in one.sums.items() if total[1]}
    for name, units in one.windows.items():
        if units is not None:
            out.setdefault(name, units)
    for name, total in one.summaries.items():
        if total[1]:
            out.setdefault(name, mean_units(total[0], total[1]))
    return dict(sorted(out.items()))
