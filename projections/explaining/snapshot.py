"""Gathers the recorded events of one model's snapshot of a period, for `streams/audit/explain`.

Reads the rows of `snapshots` and `predictions`, and the decisions that they name. The bounds on rounds and snapshots
keep a request short; beyond them the recorded numbers are shown and not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.projections.explaining.finding import UnknownFigureError, shown
from coordinator.projections.explaining.reading import (
    Contracts,
    ReadAppends,
    contract_of,
    read_placed,
    snapshot_source,
    terms_source,
    terms_told,
)
from coordinator.projections.folding.past import Readable
from coordinator.projections.views.prediction_places import scored_at
from coordinator.streams.audit.explain.snapshot import SnapshotFacts
from coordinator.streams.audit.explain.steps import Placed, moment, of_kind
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import EnsemblesScored, RoundScored, SnapshotTakenData, Terms
from coordinator.streams.log.ids import is_ensemble

ROUNDS_MAX = 3_000
SNAPSHOTS_MAX = 3_000
HOUR_MS = 3_600_000


def snapshot_facts(
    read: Readable, model_id: str, at_ms: int, appends: ReadAppends, contracts: Contracts, told: TermsInForce
) -> SnapshotFacts:
    """The facts of the snapshot whose period holds a time (ms). Raises UnknownFigureError, WorldError, LogError."""
    start, end = told.snapshot_period(at_ms) if told else (at_ms, at_ms)
    row = read.snapshots.get(model_id, end)
    if row is None:
        newest = next(read.snapshots.newest(0, 1 << 60, {model_id}), None)
        raise UnknownFigureError(
            f"model {shown(model_id)} has no snapshot of the period {moment(start)} to {moment(end)}; "
            + (
                f"its newest is of {moment(newest[1].period_start)} to {moment(newest[1].period_end)}"
                if newest
                else "it has none at all: /reports/models names the models"
            )
        )
    at, snapshot, offset = row
    terms = told.at(snapshot.period_start)
    rounds = scored_at(read.predictions, start, end, (_opened_from(told, start), at), ROUNDS_MAX)
    placed = read_placed(
        appends,
        {
            "scores": sorted({place for _, _, place in rounds}),
            "snapshots": terms_told(read.snapshots.terms, terms.contract_hash),
        },
    )
    wanted = {(input_id, scope_key) for input_id, scope_key, _ in rounds}
    closed: Sequence[Placed[RoundScored] | Placed[EnsemblesScored]] = (
        of_kind(placed, EnsemblesScored) if is_ensemble(model_id) else of_kind(placed, RoundScored)
    )
    past, past_fault = _past(read, snapshot, terms, told)
    contract, fault = contract_of(contracts, terms.contract_hash)
    return SnapshotFacts(
        snapshot=snapshot,
        source=snapshot_source(read, at, snapshot, offset),
        rounds=[
            scored for scored in closed if (scored.event.data.input_id, scored.event.data.scope_key) in wanted
        ],
        past=[(earlier, snapshot_source(read, taken_at, earlier)) for taken_at, earlier in past],
        told=told,
        configured=terms_source(placed, terms.contract_hash),
        contract=contract,
        contract_fault=fault,
        rounds_fault=f"not made again: the period has {ROUNDS_MAX:,} rounds or more"
        if len(rounds) >= ROUNDS_MAX
        else "",
        past_fault=past_fault,
    )


def _opened_from(told: TermsInForce, start: int) -> int:
    """The earliest time (ms) at which a round that is resolvable at `start` can have been opened."""
    horizons = [scope.horizon_seconds for event in told.events for scope in event.data.scopes]
    return max(0, start - max(horizons, default=0) * 1000)


def _past(
    read: Readable, snapshot: SnapshotTakenData, terms: Terms, told: TermsInForce
) -> tuple[list[tuple[int, SnapshotTakenData]], str]:
    """(the snapshots of the model that its windows look back on, oldest first; why the windows cannot be computed
    again, or "").
    """
    if terms.newcomer_past != "nothing":
        return [], "not made again: newcomers have a past, which is in no snapshot"
    since = told.comparable_since(snapshot.period_start)
    hours = max((window.hours for window in terms.windows), default=0)
    # A number of the rule `ewma` follows from all values since the last long silence.
    first = (
        since
        if any(window.rule == "ewma" for window in terms.windows)
        else max(since, snapshot.period_end - hours * HOUR_MS)
    )
    past: list[tuple[int, SnapshotTakenData]] = []
    for row in read.snapshots.newest(first + 1, snapshot.period_end, {snapshot.model_id}):
        if len(past) >= SNAPSHOTS_MAX:
            return past[::-1], f"not made again: windows look back on {SNAPSHOTS_MAX:,} snapshots or more"
        past.append(row)
    return past[::-1], ""
