"""The stage of snapshots: sums up each model's period once all scores of the period are there.

Driven by `scores`, emits `snapshots`. A period is [start, end) by resolvable time. ScoredUntil(T) closes every period
that ends at or before T, in one decision (`closing.py`). Sums are of integers, so the order of the scores does not
matter. `summary` is the contract's own aggregate of the period's scores, in the order of resolvable time, input and
scope; it is called once. Trailing windows are sums over the stage's own past snapshots.
"""

from __future__ import annotations

from typing import ClassVar

from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    AnyEvent,
    CrunchConfigured,
    EnsemblesScored,
    PeriodClosed,
    PeriodClosedData,
    RoundRescored,
    RoundScored,
    ScoredUntil,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage
from coordinator.streams.snapshots.closing import Closing
from coordinator.streams.snapshots.correcting import tally_correction
from coordinator.streams.snapshots.past import ModelPast, needs_order
from coordinator.streams.snapshots.restating import may_be_restated
from coordinator.streams.snapshots.state import OwnSnapshots, SnapshotState, tally_round
from coordinator.streams.snapshots.trailing import (
    Totals,
    Trail,
    drop_scope_trails,
    drop_trails,
    in_scope,
    take_sums,
)


class SnapshotStage(Stage[SnapshotState]):
    """scores -> snapshots."""

    topic: ClassVar[str] = "snapshots"
    drivers: ClassVar[tuple[str, ...]] = ("scores",)
    form: ClassVar[int] = 3
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "SnapshotTaken", "PeriodClosed")

    def __init__(self, contracts: Contracts) -> None:
        super().__init__(SnapshotState())
        self._contracts = contracts

    def decide(self, state: SnapshotState, placed: PlacedEvent) -> Draft | None:
        """ScoredUntil closes periods. New terms are repeated in this topic."""
        events: list[AnyEvent]
        match placed.event:
            case ScoredUntil(data=data) as done if data.until > state.own.closed_until:
                events = list(Closing(state, self._contracts, done.at).events(data.until))
            case CrunchConfigured() as configured:
                events = [configured]
            case _:
                return None
        return Draft(events, {"scores": placed.position}, self.needed(state, placed))

    def fold(self, state: SnapshotState, placed: PlacedEvent) -> None:
        """Sums the scores of open periods. For closed ones it keeps what the windows need, and drops the rest."""
        own = state.own
        # Scores are folded from `scores`, whatever was decided. SnapshotTaken and PeriodClosed are our own decisions:
        # they are folded from what they say and not from the tallies, since an owner that resumed may lack the scores
        # that a snapshot was made of. What `Closing` changed on its copies is changed here in the same order.
        match placed.event:
            case RoundScored(data=data) | EnsemblesScored(data=data):
                if _counts(own, data.resolvable_at):
                    tally_round(state, data, placed.before)
            case RoundRescored(data=data):
                if _counts(own, data.resolvable_at):
                    tally_correction(state, data, placed.before)
            case CrunchConfigured() as configured:
                own.terms.add(configured)
            case SnapshotTaken(data=data):
                _take_snapshot(own, data)
            case PeriodClosed(data=data):
                _take_closed_period(state, data)
            case _:
                pass

    def needed(self, state: SnapshotState, placed: PlacedEvent) -> dict[str, Need]:
        """The position of the first scores of the oldest period that stays open, or that may be restated."""
        closing_until = placed.event.data.until if isinstance(placed.event, ScoredUntil) else -1
        needs = [
            period.before
            for start, period in state.periods.items()
            if period.end > closing_until or may_be_restated(state.own.terms, start, closing_until)
        ]
        if isinstance(placed.event, (RoundScored, RoundRescored)) and _counts(
            state.own, placed.event.data.resolvable_at
        ):
            needs.append(placed.before)  # it is folded after it is decided, and may open a period
        return {"scores": min([*needs, placed.after], key=lambda need: need.offset)}


def _counts(own: OwnSnapshots, resolvable_at: int) -> bool:
    """Whether scores of this time (ms) belong to a period that is open, or that may be restated."""
    if resolvable_at >= own.closed_until:
        return True
    start, _ = own.terms.snapshot_period(resolvable_at)
    return may_be_restated(own.terms, start, own.closed_until)


def _take_snapshot(own: OwnSnapshots, data: SnapshotTakenData) -> None:
    """Fold what a closed period says of one model."""
    _begin(own, data)
    own.joined[data.player] = min(data.first_point, own.joined.get(data.player, data.first_point))
    own.crunchers[data.model_id] = data.cruncher_id
    _take_sums(own, data)
    if data.coverage is not None:
        own.coverage.take_model(data.model_id, data.period_start, data.scored_count, data.excused_count)
    for earlier in data.restated if needs_order(own.terms.at(data.period_start)) else ():
        own.past.setdefault(data.model_id, ModelPast()).restate(
            own.terms, earlier.period_start, earlier.series, rehearsal=data.rehearsal
        )
    if data.series:
        own.past.setdefault(data.model_id, ModelPast()).take(
            own.terms, data.period_start, data.period_end, data.series, rehearsal=data.rehearsal
        )


def _begin(own: OwnSnapshots, data: SnapshotTakenData) -> None:
    """Give a model the past of newcomers, if this is its first snapshot."""
    if data.joined is None or own.newcomers.joined.get(data.model_id) == data.joined:
        return
    own.newcomers.joined[data.model_id] = data.joined
    if data.joined.period_start == data.period_start:
        trail, scope_trails, past = own.newcomers.beginning()
        own.trails[data.model_id], own.scope_trails[data.model_id] = trail, scope_trails
        own.past[data.model_id] = past


def _take_sums(own: OwnSnapshots, data: SnapshotTakenData) -> None:
    """Add the period to the model's trails, of which the trailing windows are made: of all scopes, and of each."""
    from_ms = own.sums_since(data.period_end)
    total = data.sums.get(own.terms.at(data.period_start).value_field)
    if total is not None or data.corrected:
        sums = (total.sum_units, total.n) if total is not None else (0, 0)
        take_sums(
            own.trails.setdefault(data.model_id, Trail()),
            data.period_start,
            Totals(*sums, data.scored_count, data.rehearsal),
            data.corrected,
            from_ms,
        )
    for scope, in_it in data.scopes.items():
        take_sums(
            own.scope_trails.setdefault(data.model_id, {}).setdefault(scope, Trail()),
            data.period_start,
            Totals(in_it.sum_units, in_it.n, in_it.scored, data.rehearsal),
            in_scope(data.corrected, scope),
            from_ms,
        )


def _take_closed_period(state: SnapshotState, data: PeriodClosedData) -> None:
    """Fold the end of a period: drop what no window reaches any more."""
    own = state.own
    own.closed_until = max(own.closed_until, data.until_ms)
    if own.terms.at(data.from_ms).coverage is not None:
        own.coverage.take_period(data.from_ms, data.rounds_count)
    own.coverage.drop_before(own.terms, data.from_ms, data.until_ms)
    if data.newcomer_past is not None:
        own.newcomers.take(
            own.terms, data.from_ms, data.until_ms, data.newcomer_past, rehearsal=data.rehearsal
        )
    # A closed period is needed no more, unless a truth that is corrected later may restate it.
    state.periods = {
        start: period
        for start, period in state.periods.items()
        if period.end > data.until_ms or may_be_restated(own.terms, start, data.until_ms)
    }
    from_ms = own.sums_since(own.closed_until)
    drop_trails(own.trails, from_ms)
    drop_scope_trails(own.scope_trails, from_ms)
    since = own.terms.comparable_since(data.until_ms - 1) if own.past or own.newcomers.past else 0
    own.newcomers.drop_before(own.terms, data.until_ms, from_ms, since)
    for past in own.past.values():
        past.drop_before(own.terms, data.until_ms, since)
    own.past = {model_id: past for model_id, past in own.past.items() if past}
