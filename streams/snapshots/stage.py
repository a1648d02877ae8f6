"""The stage of snapshots: sums up each model's period once all scores of the period are there.

Driven by `scores`, emits `snapshots`. A period is [start, end) by resolvable time. ScoredUntil(T) closes every period
that ends at or before T, in one decision (`closing.py`). Sums are of integers, so the order of the scores does not
matter. `summary` is the contract's own aggregate of the period's scores, in the order of resolvable time, input and
scope; it is called once. Trailing windows are sums over the stage's own past snapshots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    AnyEvent,
    CrunchConfigured,
    EnsemblesScored,
    PeriodClosed,
    RoundScored,
    ScoredUntil,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, Stage, Told
from coordinator.streams.snapshots.closing import HOUR_MS, Closing
from coordinator.streams.snapshots.past import ModelPast
from coordinator.streams.snapshots.state import OwnSnapshots, SnapshotState, tally_round
from coordinator.streams.snapshots.trailing import Trail, drop_scope_trails, drop_trails


class SnapshotStage(Stage[SnapshotState]):
    """scores -> snapshots."""

    topic: ClassVar[str] = "snapshots"
    drivers: ClassVar[tuple[str, ...]] = ("scores",)
    form: ClassVar[int] = 2
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "SnapshotTaken", "PeriodClosed")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__(SnapshotState())
        self._contracts = contracts

    def decide(self, state: SnapshotState, told: Told) -> Draft | None:
        """ScoredUntil closes periods. New terms are repeated in this topic."""
        events: list[AnyEvent]
        match told.event:
            case ScoredUntil(data=data) as done if data.until > state.own.closed_until:
                events = list(Closing(state, self._contracts, done.at).events(data.until))
            case CrunchConfigured() as configured:
                events = [configured]
            case _:
                return None
        return Draft(events, {"scores": told.position}, self.needed(state, told))

    def fold(self, state: SnapshotState, told: Told) -> None:
        """Sum the scores of open periods. Of closed ones keep what the windows need, and drop the rest."""
        own = state.own
        match told.event:
            case RoundScored(data=data) | EnsemblesScored(data=data):
                if data.resolvable_at >= own.closed_until:
                    tally_round(state, data, told.before)
            case CrunchConfigured() as configured:
                own.terms.add(configured)
            case SnapshotTaken(data=data):
                self._begin(own, data)
                own.joined[data.player] = min(data.first_point, own.joined.get(data.player, data.first_point))
                own.crunchers[data.model_id] = data.cruncher_id
                total = data.sums.get(own.terms.at(data.period_start).value_field)
                if total is not None:
                    own.trails.setdefault(data.model_id, Trail()).add(
                        data.period_start,
                        total.sum_units,
                        total.n,
                        data.scored_count,
                        rehearsal=data.rehearsal,
                    )
                for scope, total_in_scope in data.scopes.items():
                    trails = own.scope_trails.setdefault(data.model_id, {})
                    trails.setdefault(scope, Trail()).add(
                        data.period_start,
                        total_in_scope.sum_units,
                        total_in_scope.n,
                        total_in_scope.scored,
                        rehearsal=data.rehearsal,
                    )
                if data.coverage is not None:
                    own.coverage.take_model(
                        data.model_id, data.period_start, data.scored_count, data.excused_count
                    )
                if data.series:
                    own.past.setdefault(data.model_id, ModelPast()).take(
                        own.terms, data.period_start, data.period_end, data.series, rehearsal=data.rehearsal
                    )
            case PeriodClosed(data=data):
                own.closed_until = max(own.closed_until, data.until_ms)
                if own.terms.at(data.from_ms).coverage is not None:
                    own.coverage.take_period(data.from_ms, data.rounds_count)
                    own.coverage.drop_before(own.terms, data.until_ms)
                if data.newcomer_past is not None:
                    own.newcomers.take(
                        own.terms,
                        data.from_ms,
                        data.until_ms,
                        data.newcomer_past,
                        rehearsal=data.rehearsal,
                    )
                state.periods = {
                    start: period for start, period in state.periods.items() if period.end > data.until_ms
                }
                longest = max(terms.hours_max for _, _, terms in own.terms.spans())
                drop_trails(own.trails, own.closed_until - longest * HOUR_MS)
                drop_scope_trails(own.scope_trails, own.closed_until - longest * HOUR_MS)
                since = own.terms.comparable_since(data.until_ms - 1) if own.past or own.newcomers.past else 0
                own.newcomers.drop_before(
                    own.terms, data.until_ms, own.closed_until - longest * HOUR_MS, since
                )
                for past in own.past.values():
                    past.drop_before(own.terms, data.until_ms, since)
                own.past = {model_id: past for model_id, past in own.past.items() if past}
            case _:
                pass

    @staticmethod
    def _begin(own: OwnSnapshots, data: SnapshotTakenData) -> None:
        """Give a model the past of newcomers, if this is its first snapshot."""
        if data.joined is None or own.newcomers.joined.get(data.model_id) == data.joined:
            return
        own.newcomers.joined[data.model_id] = data.joined
        if data.joined.period_start == data.period_start:
            trail, scope_trails, past = own.newcomers.beginning()
            own.trails[data.model_id], own.scope_trails[data.model_id] = trail, scope_trails
            own.past[data.model_id] = past

    def needed(self, state: SnapshotState, told: Told) -> dict[str, Need]:
        """The position of the first scores of the oldest period that stays open."""
        closing_until = told.event.data.until if isinstance(told.event, ScoredUntil) else -1
        needs = [period.before for period in state.periods.values() if period.end > closing_until]
        if isinstance(told.event, RoundScored) and told.event.data.resolvable_at >= state.own.closed_until:
            needs.append(told.before)  # this round is folded after it is decided, and may open a period
        return {"scores": min([*needs, told.after], key=lambda need: need.offset)}
