"""A checkpoint period's totals per model, and the ranking that pays.

The key is the mean score over the whole period, a window as of the period's end, or a summary key
averaged by scored predictions: one key per model, an integer in units, ranked by `ranking.rank`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
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
    """What one model's snapshots of the period add up to."""

    sums: dict[str, list[int]] = {}
    """field -> [sum in units, n]"""
    summaries: dict[str, list[int]] = {}
    windows: dict[str, int | None] = {}
    boards: dict[str, int | None] = {}
    counts: dict[str, int] = {}
    """Window that is no plain mean -> its scores, as `windows`."""
    scopes: dict[str, ScopeSum] = {}
    coverage: Answered | None = None
    """As `windows`."""
    joined: JoinedAt | None = None
    last_end: int = -1
    cruncher_id: str = ""
    first_point: int = -1
    periods: dict[int, None] = {}
    """The starts of its snapshot periods, in ms."""
    scored: int = 0
    failed: int = 0
    absent_model: int = 0
    absent_node: int = 0
    asked: int = 0
    snapshots: int = 0


class PeriodTotals(msgspec.Struct):
    """One checkpoint period [start, end); `before` is where its first snapshot stands in the log."""

    start: int
    end: int
    before: Need
    models: dict[str, ModelTotals] = {}
    snapshot_count: int = 0
    rounds: dict[int, int] = {}
    """Start of each closed snapshot period -> its rounds that some model could answer."""
    asked_before: dict[int, list[PointCount]] = {}
    newcomer_past: dict[int, NewcomerPast] = {}
    """Start of each closed snapshot period -> what it is worth to who joined after it."""
    tainted: bool = False
    tainted_windows: dict[str, int] = {}

    def add(self, data: SnapshotTakenData) -> None:
        """Take in one snapshot."""
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
        """Take in that a snapshot period is closed; the same one again changes nothing."""
        if self.start <= data.from_ms < self.end:
            self.rounds[data.from_ms] = data.rounds_count
            self.asked_before[data.from_ms] = list(data.asked_before)
            if data.newcomer_past is not None:
                self.newcomer_past[data.from_ms] = data.newcomer_past

    def closing(self, data: PeriodClosedData) -> PeriodTotals:
        """The totals as they will be once `data` is taken in; these here stay as they are."""
        then = copy(self)
        then.rounds = dict(self.rounds)
        then.asked_before = dict(self.asked_before)
        then.newcomer_past = dict(self.newcomer_past)
        then.closed(data)
        return then

    def with_past(self, terms: Terms) -> dict[str, ModelTotals]:
        """Each model's totals; of who joined in this period, with what newcomers have for its time before that."""
        found: dict[str, ModelTotals] = {}
        for model_id, one in self.models.items():
            joined = one.joined.period_start if one.joined is not None else 0
            before = [past for start, past in self.newcomer_past.items() if start < joined]
            found[model_id] = _with_sums(one, before, terms.value_field) if before else one
        return found

    def participation(self, excuse_max: float) -> dict[str, int]:
        """Per model the (round, scope) pairs that its participation is of: all of the period, whoever was there,
        without those that the node spoilt for it and what a newcomer is excused (`CrunchContract.newcomer_excuse_max`).
        """
        early = sorted(chain.from_iterable(self.asked_before.values()), key=attrgetter("point"))
        points = [asked.point for asked in early]
        before = list(accumulate((asked.n for asked in early), initial=0))
        whole = sum(self.rounds.values())
        excused_max = int(Decimal(repr(excuse_max)) * whole)
        found: dict[str, int] = {}
        for model_id, one in self.models.items():
            away = whole - sum(self.rounds.get(start, 0) for start in one.periods)
            excused = before[bisect_left(points, one.first_point)]
            found[model_id] = one.asked + away - min(excused, excused_max)
        return found

    def rehearsal(self, windows: Iterable[str]) -> bool:
        """Did the ranking or its payout use any score of replayed time? `windows` are those that they look at."""
        return self.tainted or any(self.tainted_windows.get(name, -1) == self.end for name in windows)


def ranked_entries(totals: PeriodTotals, terms: Terms) -> tuple[list[RankedEntry], dict[str, str]]:
    """The period's ranking in order, and the unranked model ids in order with the reason."""
    keys: list[tuple[str, int | None]] = []
    asked = totals.participation(terms.newcomer_excuse_max)
    models = totals.with_past(terms)
    reasons: dict[str, str] = {}
    for model_id, one in models.items():
        key = (
            "an ensemble, on no chain"
            if is_ensemble(model_id)
            else _key(one, terms, totals.end, asked[model_id])
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


def _with_sums(one: ModelTotals, past: Sequence[NewcomerPast], value_field: str) -> ModelTotals:
    """The totals with what newcomers have for periods of before a model joined."""
    own = one.sums.get(value_field, [0, 0])
    total = [own[0] + sum(of.total.sum_units for of in past), own[1] + sum(of.total.n for of in past)]
    scopes = dict(one.scopes)
    for name, scope in chain.from_iterable(of.scopes.items() for of in past):
        so_far = scopes.get(name, ScopeSum(0, 0, 0))
        scopes[name] = ScopeSum(so_far.sum_units + scope.sum_units, so_far.n + scope.n, so_far.scored)
    return msgspec.structs.replace(one, sums=one.sums | {value_field: total}, scopes=scopes)


def _key(one: ModelTotals, terms: Terms, period_end: int, asked: int) -> int | str:
    """The key in units, or why there is none."""
    if one.scored == 0:
        return "never scored in the period"
    # As decimals: 0.07 * 100 is more than 7 in binary.
    if one.scored < Decimal(repr(terms.min_participation)) * asked:
        return f"scored in {one.scored} of {asked} rounds of the period, min_participation is {terms.min_participation}"
    answered = one.coverage if one.last_end == period_end else None
    if uncovered := why_uncovered(terms.coverage, answered):
        return uncovered
    if terms.checkpoint_key == PERIOD_KEY:
        total = one.sums.get(terms.value_field)
        return mean_units(total[0], total[1]) if total else f"no score has {terms.value_field}"
    if any(window.name == terms.checkpoint_key for window in terms.windows):
        window = one.windows.get(terms.checkpoint_key) if one.last_end == period_end else None
        return f"nothing in {terms.checkpoint_key} at the period's end" if window is None else window
    if any(board.name == terms.checkpoint_key for board in terms.boards):
        units = _boards(one, terms, period_end)[terms.checkpoint_key]
        return f"has no number on the board {terms.checkpoint_key}" if units is None else units
    summary = one.summaries.get(terms.checkpoint_key)
    if summary and summary[1]:
        return mean_units(summary[0], summary[1])
    return f"no summary has {terms.checkpoint_key}"


def _counts(one: ModelTotals, terms: Terms, period_end: int) -> dict[str, int]:
    """Scores in the scopes of each board in the period, and in the windows that are no plain means at its end."""
    boards = {board.name: board_count(board, one.scopes) for board in terms.boards}
    return boards | (one.counts if one.last_end == period_end else {})


def _boards(one: ModelTotals, terms: Terms, period_end: int) -> dict[str, int | None]:
    """Each board's number: of the period's scopes, or over its window as of the period's end."""
    at_end = one.boards if one.last_end == period_end else {}
    return {
        board.name: at_end.get(board.name) if board.window else board_units(board, one.scopes)
        for board in terms.boards
    }


def _summary(one: ModelTotals, terms: Terms, period_end: int) -> dict[str, int]:
    """Means over the period per summed field, then boards, windows and summary keys under their own names."""
    out = {name: mean_units(total[0], total[1]) for name, total in one.sums.items() if total[1]}
    windows = one.windows if one.last_end == period_end else {}
    for name, units in (_boards(one, terms, period_end) | windows).items():
        if units is not None:
            out.setdefault(name, units)
    for name, total in one.summaries.items():
        if total[1]:
            out.setdefault(name, mean_units(total[0], total[1]))
    return dict(sorted(out.items()))
