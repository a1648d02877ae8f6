"""Gathers the recorded events of one model's snapshot of a period, for `streams/audit/explain`.

Reads the rows of `snapshots` and `predictions`, and the decisions that they name. The bounds on rounds and snapshots
keep a request short; beyond them the recorded numbers are shown and not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.projections.explaining.log_reading import (
    ReadAppends,
    closing_source,
    read_placed,
    snapshot_source,
    terms_source,
    terms_told,
)
from coordinator.projections.explaining.typed_ids import UnknownFigureError, shown
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held, held_from, missing_before
from coordinator.projections.views.prediction_places import scored_at
from coordinator.streams.audit.explain.figure_facts import SnapshotFacts
from coordinator.streams.audit.explain.steps import Placed, Source, moment, of_kind
from coordinator.streams.audit.windows import joined_at
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    EnsemblesScored,
    Event,
    PeriodClosedData,
    RoundRescored,
    RoundScored,
    SnapshotTakenData,
    Terms,
)

ROUNDS_MAX = 3_000
SNAPSHOTS_MAX = 3_000


def snapshot_facts(
    read: Readable, model_id: str, at_ms: int, appends: ReadAppends, told: TermsInForce
) -> SnapshotFacts:
    """The facts of the snapshot whose period holds a time (ms). Raises UnknownFigureError, WorldError, LogError."""
    start, end = told.snapshot_period(at_ms) if told else (at_ms, at_ms)
    row = read.snapshots.get(model_id, end)
    if row is None:
        check_rows_held(read.snapshots, end, "this period")
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
    first, scored, placed = _scores(read, snapshot, appends, told)
    past, past_fault = _past(read, snapshot, terms, told)
    closings = _closings(read, snapshot, [data for _, data in past], terms, told)
    return SnapshotFacts(
        snapshot=snapshot,
        source=snapshot_source(read, at, snapshot, offset),
        rounds=rounds_counted(placed, first, end),
        past=[(earlier, snapshot_source(read, taken_at, earlier)) for taken_at, earlier in past],
        closings=closings,
        told=told,
        configured=terms_source(placed, terms.contract_hash),
        contract_hash=terms.contract_hash,
        rounds_fault=f"not computed again: the period has {ROUNDS_MAX:,} rounds or more, with those that it restates"
        if len(scored) >= ROUNDS_MAX
        else "",
        past_fault=past_fault
        or (
            f"not computed again: it rests on {SNAPSHOTS_MAX:,} closed periods or more"
            if len(closings) >= SNAPSHOTS_MAX
            else ""
        ),
    )


def _scores(
    read: Readable, snapshot: SnapshotTakenData, appends: ReadAppends, told: TermsInForce
) -> tuple[int, list[int], list[Placed[Event]]]:
    """(since when (ms) rounds are read, the offsets of their scores, the events there and those of the terms).

    The rounds are those of the period and of each earlier one of which a truth was corrected in it. A correction that
    leaves the model as it was is not in its snapshot, and is found among the scores of the period.
    """
    start, end = snapshot.period_start, snapshot.period_end
    first = min((earlier.period_start for earlier in snapshot.restated), default=start)
    while True:
        check_rows_held(read.predictions, first, "a round of this period")
        scored = scored_at(read.predictions, first, end, ROUNDS_MAX)
        contract_hash = told.at(start).contract_hash
        placed = read_placed(
            appends,
            {
                "scores": sorted(set(scored)),
                "snapshots": terms_told(read.snapshots.terms, contract_hash),
            },
        )
        oldest = min(
            (
                told.snapshot_period(corrected.event.data.first_resolvable_at)[0]
                for corrected in of_kind(placed, RoundRescored)
                if start <= corrected.event.data.resolvable_at < end
            ),
            default=first,
        )
        if oldest >= first:
            return first, scored, placed
        first = oldest


def rounds_counted(
    placed: Sequence[Placed[Event]], start: int, end: int
) -> list[Placed[RoundScored] | Placed[RoundRescored] | Placed[EnsemblesScored]]:
    """The events that score rounds which count in [start, end) (ms), in the order of the log."""
    scored: list[Placed[RoundScored] | Placed[RoundRescored] | Placed[EnsemblesScored]] = [
        *of_kind(placed, RoundScored),
        *of_kind(placed, RoundRescored),
        *of_kind(placed, EnsemblesScored),
    ]
    return [scored_round for scored_round in scored if start <= scored_round.event.data.resolvable_at < end]


def _past(
    read: Readable, snapshot: SnapshotTakenData, terms: Terms, told: TermsInForce
) -> tuple[list[tuple[int, SnapshotTakenData]], str]:
    """(the snapshots of the model that its windows look back on, oldest first; why the windows cannot be computed
    again, or "").
    """
    first = looks_back_to(read, snapshot.period_start, snapshot.period_end, terms, told)
    if fault := missing_before(read.snapshots, first):
        return [], fault
    past: list[tuple[int, SnapshotTakenData]] = []
    for row in read.snapshots.newest(first + 1, snapshot.period_end, {snapshot.model_id}):
        if len(past) >= SNAPSHOTS_MAX:
            return past[::-1], f"not computed again: windows look back on {SNAPSHOTS_MAX:,} snapshots or more"
        past.append(row)
    return past[::-1], ""


def looks_back_to(read: Readable, start: int, end: int, terms: Terms, told: TermsInForce) -> int:
    """The start (ms) of the oldest period that a window, a board or the coverage of the period [start, end) needs."""
    since = told.comparable_since(start)
    hours = max((window.hours for window in terms.windows), default=0)
    # A number of the rule `ewma` follows from all values since the last long silence.
    windows_from = (
        since if any(window.rule == "ewma" for window in terms.windows) else max(since, end - hours * HOUR_MS)
    )
    if (coverage := terms.coverage) is None:
        return windows_from
    if coverage.hours:
        return min(windows_from, end - coverage.hours * HOUR_MS)
    rounds_count, covered_from = 0, start
    for _, closing, _ in read.snapshots.closings(0, end):
        if rounds_count >= coverage.rounds:
            break
        rounds_count += closing.rounds_count
        covered_from = closing.from_ms
    else:
        covered_from = 0 if held_from(read.snapshots) else covered_from  # the closings before it have left
    return min(windows_from, covered_from)


def _closings(
    read: Readable,
    snapshot: SnapshotTakenData,
    past: Sequence[SnapshotTakenData],
    terms: Terms,
    told: TermsInForce,
) -> list[tuple[PeriodClosedData, Source]]:
    """How the periods were closed that the windows of a newcomer, or the coverage, rest on; at most SNAPSHOTS_MAX."""
    joined = joined_at([*past, snapshot])
    if terms.coverage is None and not joined:
        return []
    first = looks_back_to(read, snapshot.period_start, snapshot.period_end, terms, told)
    until = snapshot.period_end if terms.coverage else joined
    rows = read.snapshots.closings(first, until)
    return [
        (closing, closing_source(at, closing, offset))
        for (at, closing, offset), _ in zip(rows, range(SNAPSHOTS_MAX), strict=False)
    ][::-1]
