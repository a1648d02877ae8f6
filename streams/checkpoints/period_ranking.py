"""Sums up a checkpoint period by model, and ranks the models for the payment.

A value with pure functions: snapshots in, ranked entries out. A model is ranked by one key, an integer in units: the
mean score over the whole period, a window or board as of the period's end, or a summary averaged by scored predictions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from decimal import Decimal
from itertools import accumulate, chain
from operator import attrgetter

import msgspec

from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.events import (
    Answered,
    JoinedAt,
    NewcomerPast,
    PeriodClosedData,
    PointCount,
    RankedEntry,
    ScopeSum,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.scores.boards import board_count, board_units
from coordinator.streams.scores.units import mean_units

PERIOD_KEY = "period"


class ModelTotals(msgspec.Struct):
    """The totals of one model's snapshots in the period."""

    sums: dict[str, list[int]] = {}
    """Field -> [sum of units, number of values]."""
    summaries: dict[str, list[int]] = {}
    """Name -> [sum of units, each times the scored predictions of its snapshot; number of these predictions]."""
    windows: dict[str, int | None] = {}
    """Window -> its units, of the last snapshot, as are `boards`, `counts`, `coverage` and `joined`."""
    boards: dict[str, int | None] = {}
    counts: dict[str, int] = {}
    """Window that is no plain mean -> how many scores are in it."""
    scopes: dict[str, ScopeSum] = {}
    coverage: Answered | None = None
    joined: JoinedAt | None = None
    last_end: int = -1
    """The end (ms) of the last snapshot."""
    cruncher_id: str = ""
    first_point: int = -1
    periods: dict[int, None] = {}
    """The starts (ms) of the snapshot periods for which it has a snapshot."""
    scored: int = 0
    failed: int = 0
    absent_model: int = 0
    absent_node: int = 0
    asked: int = 0
    snapshots: int = 0

    def add_summary(self, summary_units: Mapping[str, int], scored_count: int) -> None:
        """Add the summary of so many scored predictions; take it out if that is below 0."""
        for name, units in summary_units.items():
            total = self.summaries.setdefault(name, [0, 0])
            total[0] += units * scored_count
            total[1] += scored_count


class PeriodTotals(msgspec.Struct):
    """One checkpoint period [start, end) in ms. `before`: the position in `snapshots` before its first snapshot."""

    start: int
    end: int
    before: Need
    models: dict[str, ModelTotals] = {}
    snapshot_count: int = 0
    rounds: dict[int, int] = {}
    """Start of each closed snapshot period -> number of its rounds that at least one model could answer."""
    asked_before: dict[int, list[PointCount]] = {}
    """Start of each closed snapshot period -> those of its rounds that were asked before the checkpoint period."""
    newcomer_past: dict[int, NewcomerPast] = {}
    """Start of each closed snapshot period -> what it gives to models that joined after it."""
    tainted: bool = False
    """Whether a snapshot has a score of replayed time."""
    tainted_windows: dict[str, int] = {}
    """Window -> the end (ms) of the last snapshot in which the window has a score of replayed time."""

    def add(self, data: SnapshotTakenData) -> None:
        """Add a snapshot."""
        totals = self.models.setdefault(data.model_id, ModelTotals())
        self.snapshot_count += 1
        totals.snapshots += 1
        totals.scored += data.scored_count
        totals.failed += data.failed_count
        totals.absent_model += data.absent_model_count
        totals.absent_node += data.absent_node_count
        totals.periods[data.period_start] = None
        totals.asked += data.rounds_count
        totals.first_point, totals.cruncher_id = data.first_point, data.cruncher_id
        for field, field_sum in data.sums.items():
            total = totals.sums.setdefault(field, [0, 0])
            total[0] += field_sum.sum_units
            total[1] += field_sum.n
        # `scored_count` has what corrected truths change in earlier periods; their summaries have it in its place.
        own_count = data.scored_count - sum(
            earlier.scored_count - earlier.scored_before for earlier in data.restated
        )
        totals.add_summary(data.summary_units, own_count)
        for earlier in data.restated:
            totals.add_summary(earlier.summary_before, -earlier.scored_before)
            totals.add_summary(earlier.summary_units, earlier.scored_count)
        if data.period_end >= totals.last_end:
            totals.last_end, totals.windows = data.period_end, data.windows_units
            totals.boards, totals.counts = data.boards_units, data.windows_counts
            totals.coverage, totals.joined = data.coverage, data.joined
        for name, scope in data.scopes.items():
            so_far = totals.scopes.get(name, ScopeSum(0, 0, 0))
            totals.scopes[name] = ScopeSum(
                so_far.sum_units + scope.sum_units, so_far.n + scope.n, so_far.scored + scope.scored
            )
        self.tainted |= data.rehearsal
        for name in data.rehearsal_windows:
            self.tainted_windows[name] = max(self.tainted_windows.get(name, -1), data.period_end)

    def closed(self, data: PeriodClosedData) -> None:
        """Add that a snapshot period is closed. The same one again changes nothing."""
        if self.start <= data.from_ms < self.end:
            self.rounds[data.from_ms] = data.rounds_count
            self.asked_before[data.from_ms] = list(data.asked_before)
            if data.newcomer_past is not None:
                self.newcomer_past[data.from_ms] = data.newcomer_past

    def closing(self, data: PeriodClosedData) -> PeriodTotals:
        """The totals after `closed(data)`. This object does not change; the models, which stay as they are, are
        shared.
        """
        then = copy(self)
        then.rounds = dict(self.rounds)
        then.asked_before = dict(self.asked_before)
        then.newcomer_past = dict(self.newcomer_past)
        then.closed(data)
        return then

    def with_past(self, terms: Terms) -> dict[str, ModelTotals]:
        """model_id -> its totals, with the past that newcomers are given if it joined in this period."""
        totals_of: dict[str, ModelTotals] = {}
        for model_id, totals in self.models.items():
            joined = totals.joined.period_start if totals.joined is not None else 0
            before = [past for start, past in self.newcomer_past.items() if start < joined]
            totals_of[model_id] = _with_sums(totals, before, terms.value_field) if before else totals
        return totals_of

    def participation(self, excuse_max: float) -> dict[str, int]:
        """model_id -> the number of (round, scope) pairs by which its scored ones are divided.

        These are all of the period, also those before the model joined, less those that it missed by the node's fault.
        A newcomer is excused from the ones that were asked before its first round and before the period, up to the
        share `excuse_max` of all (`CrunchContract.newcomer_excuse_max`).
        """
        early = sorted(chain.from_iterable(self.asked_before.values()), key=attrgetter("point"))
        points = [asked.point for asked in early]
        # By index in `points`: how many pairs were asked before that point.
        count_before = list(accumulate((asked.n for asked in early), initial=0))
        all_rounds = sum(self.rounds.values())
        excused_max = int(Decimal(repr(excuse_max)) * all_rounds)
        asked_of: dict[str, int] = {}
        for model_id, totals in self.models.items():
            without_snapshot = all_rounds - sum(self.rounds.get(start, 0) for start in totals.periods)
            excused = count_before[bisect_left(points, totals.first_point)]
            asked_of[model_id] = totals.asked + without_snapshot - min(excused, excused_max)
        return asked_of

    def rehearsal(self, windows: Iterable[str]) -> bool:
        """Whether ranking or payout use a score of replayed time. `windows` are the ones that they use."""
        return self.tainted or any(self.tainted_windows.get(name, -1) == self.end for name in windows)


def ranked_entries(totals: PeriodTotals, terms: Terms) -> tuple[list[RankedEntry], dict[str, str]]:
    """(the ranking of the period in order, model_id -> reason for each model without a rank, in order)."""
    keys: list[tuple[str, int | None]] = []
    asked = totals.participation(terms.newcomer_excuse_max)
    models = totals.with_past(terms)
    reasons: dict[str, str] = {}
    for model_id, model_totals in models.items():
        key = (
            "an ensemble, on no chain"
            if is_ensemble(model_id)
            else _key(model_totals, terms, totals.end, asked[model_id])
        )
        if isinstance(key, str):
            reasons[model_id] = key
        keys.append((model_id, None if isinstance(key, str) else key))
    ranked, unranked = rank(keys, terms.ranking_direction)
    entries = [
        RankedEntry(
            model_id=model_id,
            rank=place,
            key_units=key,
            prediction_count=models[model_id].scored,
            snapshot_count=models[model_id].snapshots,
            result_summary_units=_summary(models[model_id], terms, totals.end),
            counts=_counts(models[model_id], terms, totals.end),
            failed_count=models[model_id].failed,
            absent_count=models[model_id].absent_model + models[model_id].absent_node,
            rounds_count=asked[model_id],
            cruncher_id=models[model_id].cruncher_id,
            first_point=models[model_id].first_point,
        )
        for place, model_id, key in ranked
    ]
    return entries, {model_id: reasons[model_id] for model_id in unranked}


def _with_sums(totals: ModelTotals, past: Sequence[NewcomerPast], value_field: str) -> ModelTotals:
    """The totals, with what newcomers are given for the periods before the model joined."""
    own_units, own_n = totals.sums.get(value_field, [0, 0])
    total = [
        own_units + sum(period.total.sum_units for period in past),
        own_n + sum(period.total.n for period in past),
    ]
    scopes = dict(totals.scopes)
    for name, scope in chain.from_iterable(period.scopes.items() for period in past):
        so_far = scopes.get(name, ScopeSum(0, 0, 0))
        scopes[name] = ScopeSum(so_far.sum_units + scope.sum_units, so_far.n + scope.n, so_far.scored)
    return msgspec.structs.replace(totals, sums=totals.sums | {value_field: total}, scopes=scopes)


def _key(totals: ModelTotals, terms: Terms, period_end: int, asked: int) -> int | str:
    """The key in units, or the reason why the model has none and is not ranked."""
    if totals.scored == 0:
        return "never scored in the period"
    # With decimals, because in floats 0.07 * 100 is more than 7.
    if totals.scored < Decimal(repr(terms.min_participation)) * asked:
        return (
            f"scored in {totals.scored} of {asked} rounds of the period, "
            f"min_participation is {terms.min_participation}"
        )
    answered = totals.coverage if totals.last_end == period_end else None
    if uncovered := why_uncovered(terms.coverage, answered):
        return uncovered
    if terms.checkpoint_key == PERIOD_KEY:
        total = totals.sums.get(terms.value_field)
        return mean_units(total[0], total[1]) if total else f"no score has {terms.value_field}"
    if any(window.name == terms.checkpoint_key for window in terms.windows):
        window = totals.windows.get(terms.checkpoint_key) if totals.last_end == period_end else None
        return f"nothing in {terms.checkpoint_key} at the period's end" if window is None else window
    if any(board.name == terms.checkpoint_key for board in terms.boards):
        units = _boards(totals, terms, period_end)[terms.checkpoint_key]
        return f"has no number on the board {terms.checkpoint_key}" if units is None else units
    summary = totals.summaries.get(terms.checkpoint_key)
    if summary and summary[1]:
        return mean_units(summary[0], summary[1])
    return f"no summary has {terms.checkpoint_key}"


def _counts(totals: ModelTotals, terms: Terms, period_end: int) -> dict[str, int]:
    """Board or window -> how many scores are in it. Windows are as of the period's end, without the plain means."""
    boards = {board.name: board_count(board, totals.scopes) for board in terms.boards}
    return boards | (totals.counts if totals.last_end == period_end else {})


def _boards(totals: ModelTotals, terms: Terms, period_end: int) -> dict[str, int | None]:
    """Board -> its units: over the scopes of the period, or over its window as of the period's end."""
    at_end = totals.boards if totals.last_end == period_end else {}
    return {
        board.name: at_end.get(board.name) if board.window else board_units(board, totals.scopes)
        for board in terms.boards
    }


def _summary(totals: ModelTotals, terms: Terms, period_end: int) -> dict[str, int]:
    """Name -> units: means over the period by field, then boards, windows and summaries.

    If two have the same name, the one that is named first here counts.
    """
    out = {name: mean_units(total[0], total[1]) for name, total in totals.sums.items() if total[1]}
    windows = totals.windows if totals.last_end == period_end else {}
    for name, units in (_boards(totals, terms, period_end) | windows).items():
        if units is not None:
            out.setdefault(name, units)
    for name, total in totals.summaries.items():
        if total[1]:
            out.setdefault(name, mean_units(total[0], total[1]))
    return dict(sorted(out.items()))
