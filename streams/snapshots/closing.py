"""Closes periods: makes the snapshots that follow from one ScoredUntil, without changing the state.

Pure. Reads the state, returns events. One decision may close many periods, and each builds on those before it. So the
past of the windows is copied first, and the copies continue from period to period. The fold makes the same steps in the
state, from the events.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from coordinator.streams.contract.contract import Contracts
from coordinator.streams.durations import FAR_MS, HOUR_MS
from coordinator.streams.events import (
    Answered,
    AnyEvent,
    FieldSum,
    JoinedAt,
    NewcomerPast,
    PeriodClosed,
    PeriodClosedData,
    PeriodCorrection,
    PeriodRestated,
    PointCount,
    ScopeSum,
    SeriesValue,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
    Window,
)
from coordinator.streams.log import ids
from coordinator.streams.scores.boards import board_units
from coordinator.streams.snapshots.filling import past_of, tally_with_past
from coordinator.streams.snapshots.newcomers import ALWAYS_HERE
from coordinator.streams.snapshots.past import ModelPast, needs_order
from coordinator.streams.snapshots.restating import restated_periods, scores_of, series_of
from coordinator.streams.snapshots.state import OpenPeriod, SnapshotState, Tally
from coordinator.streams.snapshots.summary import NO_SCORES, Summary, summaries
from coordinator.streams.snapshots.trailing import (
    Totals,
    Trail,
    drop_scope_trails,
    drop_trails,
    in_scope,
    take_sums,
)
from coordinator.streams.snapshots.windows import Number, numbers_of_windows, of_sums


class _EndedPeriod(NamedTuple):
    """A period [start, end) (ms) that is closed now. Scores from before `since` (ms) were made under rules whose
    numbers cannot stand beside those of now. Sums are kept from `reach_ms` on.
    """

    start: int
    end: int
    since: int
    reach_ms: int
    terms: Terms
    period: OpenPeriod | None
    """None: no score came in it."""

    @property
    def rounds_count(self) -> int:
        return len(self.period.points) if self.period is not None else 0

    @property
    def gives_past(self) -> bool:
        return self.terms.newcomer_past != "nothing"


class Closing:
    """The periods that one ScoredUntil closes, one after another. `at` is when it became known, in ms."""

    def __init__(self, state: SnapshotState, contracts: Contracts, at: int) -> None:
        self._state, self._own, self._contracts, self._at = state, state.own, contracts, at
        self._trails = {model_id: trail.copy() for model_id, trail in self._own.trails.items()}
        self._scope_trails = {
            model_id: {scope: trail.copy() for scope, trail in trails.items()}
            for model_id, trails in self._own.scope_trails.items()
        }
        self._past = {model_id: past.copy() for model_id, past in self._own.past.items()}
        self._joined, self._crunchers = dict(self._own.joined), dict(self._own.crunchers)
        self._newcomers, self._coverage = self._own.newcomers.copy(), self._own.coverage.copy()

    def events(self, until: int) -> Iterator[AnyEvent]:
        """The snapshots of every period that ends at or before `until` (ms), and PeriodClosed for each.

        Consecutive periods without a snapshot are closed by one event.
        """
        first = min(self._state.periods, default=until)
        start = (
            self._own.closed_until
            if self._own.closed_until >= 0
            else self._own.terms.snapshot_period(first)[0]
        )
        if start >= until:  # the first ScoredUntil, before any score: the periods begin here
            yield self._period_closed(until, until, 0)
            return
        empty_from = start
        while start < until:
            _, end = self._own.terms.snapshot_period(start)
            snapshots = list(self._snapshots(start, end))
            if snapshots:
                if empty_from < start:
                    yield self._period_closed(empty_from, start, 0)
                yield from snapshots
                yield self._period_closed(start, end, len(snapshots))
                self._take_period(start, end)
                empty_from = end
            elif not self._trails and not self._past and not self._coverage.models:
                # No model has scores or a past, so nothing can change before the next period with scores.
                end = min([until, *(at for at in self._state.periods if at > start)])
            start = end
        if empty_from < until:
            yield self._period_closed(empty_from, until, 0)

    def _period_closed(self, from_ms: int, until_ms: int, count: int) -> PeriodClosed:
        period = self._state.periods.get(from_ms)
        checkpoint_start, _ = self._own.terms.checkpoint_period(from_ms)
        points = Count(period.points) if period is not None else Count[int]()
        rehearsal = period is not None and any(tally.rehearsal for tally in period.tallies.values())
        return PeriodClosed(
            id=f"period-closed/{from_ms}-{until_ms}",
            at=self._at,
            data=PeriodClosedData(
                from_ms=from_ms,
                until_ms=until_ms,
                snapshot_count=count,
                rehearsal=rehearsal,
                rounds_count=points.total(),
                newcomer_past=self._newcomer_past(from_ms, until_ms),
                other_scoring_count=sum(
                    within.other_scoring
                    for at, within in self._state.periods.items()
                    if from_ms <= at < until_ms
                ),
                asked_before=[
                    PointCount(point, n) for point, n in sorted(points.items()) if point < checkpoint_start
                ],
            ),
        )

    def _snapshots(self, start: int, end: int) -> Iterator[SnapshotTaken]:
        """A snapshot for each model that has scores in the period [start, end) (ms), or a past in a window's reach."""
        terms, period = self._own.terms.at(start), self._state.periods.get(start)
        since, reach_ms = self._own.terms.comparable_since(start), self._own.sums_since(end)
        ended = _EndedPeriod(start, end, since, reach_ms, terms, period)
        tallies = period.tallies if period is not None else {}
        self._drop_past(ended)
        if terms.coverage is not None:
            # Add the rounds of this period for all models. What each model answered of them is added below.
            self._coverage.take_period(start, ended.rounds_count)
            self._coverage.drop_before(self._own.terms, start, end)
        if ended.gives_past:
            self._join(tallies, start)
        for model_id, tally in tallies.items():
            self._crunchers[model_id] = tally.cruncher_id
            player = tally.cruncher_id or model_id
            self._joined[player] = min(tally.first_point, self._joined.get(player, FAR_MS))
        scores = scores_of(period)
        weights = dict(period.weights) if period is not None else {}
        summary_of = summaries(self._contracts(terms.contract_hash), scores, weights) if scores else {}
        restated_of = restated_periods(
            self._state, self._contracts, start, self._newcomers.joined if ended.gives_past else None
        )
        # A model without a round in this period has a snapshot as long as a window, or the coverage, reaches back to
        # one of its rounds: what it shows changes although the model did nothing.
        model_ids = (
            tallies.keys()
            | restated_of.keys()
            | self._trails.keys()
            | self._past.keys()
            | self._coverage.models.keys()
        )
        for model_id in sorted(model_ids):  # sets have no order, and the log of every run must be the same
            tally, restated = tallies.get(model_id) or Tally(), restated_of.get(model_id, [])
            yield self._snapshot(ended, model_id, tally, restated, summary_of.get(model_id, NO_SCORES))

    def _snapshot(
        self,
        ended: _EndedPeriod,
        model_id: str,
        tally: Tally,
        restated: list[PeriodRestated],
        summary: Summary,
    ) -> SnapshotTaken:
        """The snapshot of one model, whose sums of the period are added to its past."""
        start, end, terms = ended.start, ended.end, ended.terms
        joined = self._newcomers.joined.get(model_id, ALWAYS_HERE) if ended.gives_past else None
        if joined is not None:
            tally = tally_with_past(tally, ended.period, model_id, joined, terms.value_field)
        corrected = tally.corrections()
        trail = self._take_sums(ended, model_id, tally, corrected)
        series = self._take_series(ended, model_id, tally, restated)
        windows, rehearsed = _windows(ended, trail, self._past.get(model_id) or ModelPast())
        answered: Answered | None = None
        if terms.coverage is not None:
            self._coverage.take_model(model_id, start, tally.scored, tally.excused)
            answered = self._coverage.answered(model_id, terms.coverage, end)
        scopes = {scope: ScopeSum(*total) for scope, total in sorted(tally.scopes.items())}
        boards_units = self._boards(ended, model_id, scopes, corrected) if terms.boards else {}
        cruncher_id = self._crunchers.get(model_id, "")
        return SnapshotTaken(
            id=f"{ids.snapshot_id(model_id, start, end)}:taken",
            at=self._at,
            data=SnapshotTakenData(
                snapshot_id=ids.snapshot_id(model_id, start, end),
                model_id=model_id,
                period_start=start,
                period_end=end,
                sums={field: FieldSum(*total) for field, total in sorted(tally.sums.items())},
                summary_units=summary.units,
                summary_error=summary.error,
                windows_units={name: number.units for name, number in windows.items()},
                rehearsal_windows=[window.name for window in terms.windows if window.name in rehearsed],
                scored_count=tally.scored,
                failed_count=tally.failed,
                failed_node_count=tally.failed_node,
                cruncher_id=cruncher_id,
                first_point=self._joined[cruncher_id or model_id],
                rounds_count=ended.rounds_count - tally.excused,
                excused_count=tally.excused,
                coverage=answered,
                joined=joined,
                filled_count=tally.filled,
                absent_model_count=tally.absent_model,
                absent_node_count=tally.absent_node,
                charged_count=tally.charged,
                no_score_count=tally.no_score,
                rehearsal=tally.rehearsal,
                contract_hash=terms.contract_hash,
                restated=restated,
                series=series,
                windows_counts={
                    window.name: windows[window.name].scored for window in terms.windows if not window.plain
                },
                scopes=scopes,
                corrected=corrected,
                boards_units=boards_units,
            ),
        )

    def _drop_past(self, ended: _EndedPeriod) -> None:
        """Drop what no window of this period reaches, and scores that it cannot be compared with.

        All that changes here and below are copies: deciding changes no state. The fold of the events that are yielded
        makes the same changes in the state itself, out of the events alone.
        """
        from_ms = max(ended.reach_ms, ended.since)
        drop_trails(self._trails, from_ms)
        drop_scope_trails(self._scope_trails, from_ms)
        for past in self._past.values():
            past.drop_before(self._own.terms, ended.end, ended.since)
        self._past = {model_id: past for model_id, past in self._past.items() if past}

    def _take_sums(
        self, ended: _EndedPeriod, model_id: str, tally: Tally, corrected: list[PeriodCorrection]
    ) -> Trail:
        """The model's sums of all periods up to this one, which is added."""
        trail = self._trails.get(model_id) or Trail()
        total = tally.sums.get(ended.terms.value_field)
        if total is not None or corrected:
            self._trails[model_id] = trail
            sum_units, n = total or (0, 0)
            sums = Totals(sum_units, n, tally.scored, tally.rehearsal)
            take_sums(trail, ended.start, sums, corrected, ended.reach_ms)
        return trail

    def _take_series(
        self, ended: _EndedPeriod, model_id: str, tally: Tally, restated: list[PeriodRestated]
    ) -> list[SeriesValue]:
        """The model's scores of this period, one by one, where a window cannot be made of sums, as a latest value.

        They are added to its past, behind the corrections of earlier periods: the past is in order of time.
        """
        if not needs_order(ended.terms):
            return []
        for earlier in restated:
            past = self._past.setdefault(model_id, ModelPast())
            past.restate(self._own.terms, earlier.period_start, earlier.series, rehearsal=tally.rehearsal)
        series = [] if ended.period is None else series_of(ended.period, tally, ended.terms.value_field)
        if series:
            past = self._past.setdefault(model_id, ModelPast())
            past.take(self._own.terms, ended.start, ended.end, series, rehearsal=tally.rehearsal)
        return series

    def _join(self, tallies: Mapping[str, Tally], start: int) -> None:
        """Give the past of a newcomer to each model whose first rounds are in the period that begins at `start`
        (ms).
        """
        for model_id in sorted(tallies.keys() - self._crunchers.keys()):
            self._newcomers.joined[model_id] = JoinedAt(tallies[model_id].joined_at, start)
            trail, scope_trails, past = self._newcomers.beginning()
            self._trails[model_id], self._scope_trails[model_id], self._past[model_id] = (
                trail,
                scope_trails,
                past,
            )

    def _newcomer_past(self, from_ms: int, until_ms: int) -> NewcomerPast | None:
        """What a period gives to models that join after it; None for a run of empty periods."""
        period, terms = self._state.periods.get(from_ms), self._own.terms.at(from_ms)
        if terms.newcomer_past == "nothing" or period is None or period.end != until_ms:
            return None
        return past_of(period, ordered=needs_order(terms))

    def _take_period(self, start: int, end: int) -> None:
        """Add a closed period to the past that newcomers get."""
        past = self._newcomer_past(start, end)
        if past is not None:
            rehearsal = any(tally.rehearsal for tally in self._state.periods[start].tallies.values())
            self._newcomers.take(self._own.terms, start, end, past, rehearsal=rehearsal)

    def _boards(
        self,
        ended: _EndedPeriod,
        model_id: str,
        scopes: dict[str, ScopeSum],
        corrected: Sequence[PeriodCorrection],
    ) -> dict[str, int | None]:
        """Board -> units, for boards over a window. Adds this period's scopes to the past."""
        trails = self._scope_trails.setdefault(model_id, {})
        for scope, of_period in scopes.items():
            take_sums(
                trails.setdefault(scope, Trail()),
                ended.start,
                Totals(of_period.sum_units, of_period.n, of_period.scored),
                in_scope(corrected, scope),
                ended.reach_ms,
            )
        hours = {window.name: window.hours for window in ended.terms.windows}
        units: dict[str, int | None] = {}
        for board in ended.terms.boards:
            if board.window:
                from_ms = max(ended.end - hours[board.window] * HOUR_MS, ended.since)
                sums: dict[str, ScopeSum] = {}
                for scope, trail in trails.items():
                    totals = trail.since(from_ms)
                    sums[scope] = ScopeSum(totals.sum_units, totals.n, totals.scored)
                units[board.name] = board_units(board, sums)
        return units


def _windows(ended: _EndedPeriod, trail: Trail, past: ModelPast) -> tuple[dict[str, Number], set[str]]:
    """(window -> the model's number at a period's end, names of the windows that a rehearsal is in)."""
    rehearsed: set[str] = set()
    end, since, windows = ended.end, ended.since, ended.terms.windows

    def number(window: Window) -> Number:
        if window.of_sums:
            totals = trail.since(max(end - window.hours * HOUR_MS, since))
            value, has_rehearsal = of_sums(window, *totals[:3]), bool(totals.rehearsals)
        else:
            value, has_rehearsal = past.number(window, end, since)
        if has_rehearsal:
            rehearsed.add(window.name)
        return value

    numbers = numbers_of_windows(windows, number)
    rehearsed.update(window.name for window in windows if rehearsed.intersection(window.combines))
    return numbers, rehearsed
