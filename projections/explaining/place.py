"""Gathers what a row of a live board, or the windows of one scope, rest on, for `streams/audit/explain`.

Reads the board, the model's snapshots, and the rounds that were scored since the last period was closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from coordinator.projections.explaining.log_reading import (
    ReadAppends,
    read_placed,
    snapshot_source,
    terms_source,
    terms_told,
)
from coordinator.projections.explaining.snapshot import ROUNDS_MAX, SNAPSHOTS_MAX, rounds_counted
from coordinator.projections.explaining.typed_ids import UnknownFigureError, shown
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held, missing_before
from coordinator.projections.views.prediction_places import scored_at
from coordinator.projections.views.scope_places import closed_at, scope_history, scope_windows
from coordinator.streams.audit.explain.place import PlaceFacts, Shown
from coordinator.streams.audit.explain.steps import Placed, Source, moment, of_kind
from coordinator.streams.contract.terms import TermsInForce, in_force
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import Event, InputsUntil, ScoredUntil, SnapshotTakenData, Terms

FAR = 1 << 60


def place_facts(read: Readable, model_id: str, by: str, appends: ReadAppends) -> PlaceFacts:
    """The facts of a model's row of the board, which may be ranked by another number than the contract's (`by`).
    Raises UnknownFigureError, WorldError, LogError.
    """
    try:
        board = read.leaderboard.board(by or None)
    except KeyError as error:
        raise UnknownFigureError(
            f"no board is ranked by {shown(by)}: it is a window, a board over a window, or a key of the snapshot "
            "summary, as /reports/leaderboard?by= has them"
        ) from error
    row = None if board is None else next((row for row in board.rows if row.model.model_id == model_id), None)
    if board is None or row is None:
        raise UnknownFigureError(
            f"model {shown(model_id)} is not on the board: /reports/leaderboard names the models"
        )
    told = in_force(read.leaderboard.terms.in_order)
    terms = told.at(board.until - 1)
    closed_until = read.snapshots.closed_until
    first = _looks_back_to(terms, told, board.until)
    if board.ranked_as_of is not None:
        first = min(first, board.ranked_as_of - 1)
    past = _past(read, model_id, first)
    scored = scored_at(read.predictions, closed_until, FAR, ROUNDS_MAX)
    placed, moved_by = _read(read, appends, scored, terms, board.until)
    too_many = len(scored) >= ROUNDS_MAX or len(past) >= SNAPSHOTS_MAX
    return PlaceFacts(
        model_id=model_id,
        until=board.until,
        moved_by=moved_by,
        by=by,
        ranking_key=board.ranking_key,
        ranked_as_of=board.ranked_as_of,
        windows_units=row.windows_units,
        unranked_reason=row.unranked_reason,
        rows=[
            Shown(other.model.model_id, other.windows_units.get(board.ranking_key), other.rank)
            for other in board.rows
        ],
        past=past,
        rounds=rounds_counted(placed, closed_until, FAR),
        rounds_fault=missing_before(read.snapshots, first)
        or ("not computed again: it rests on too many rounds or periods" if too_many else ""),
        closed_until=closed_until,
        told=told,
        configured=terms_source(placed, terms.contract_hash),
    )


def scope_facts(
    read: Readable, model_id: str, scope: str, at_ms: int | None, appends: ReadAppends
) -> PlaceFacts:
    """The facts of a model's windows in one scope (SUBJECT/SCOPE_KEY): now, or at the end of the snapshot period that
    holds `at_ms`. Raises UnknownFigureError, WorldError, LogError.
    """
    told, leaderboard = in_force(read.leaderboard.terms.in_order), read.leaderboard
    until = leaderboard.until if at_ms is None or not told else told.snapshot_period(at_ms)[1]
    subject, _, scope_key = scope.rpartition("/")
    windows = (
        scope_windows(leaderboard, model_id, subject, scope_key)
        if at_ms is None
        else scope_history(leaderboard, until, model_id, subject, scope_key)
    )
    if not told or windows is None:
        check_rows_held(leaderboard, until, "this period")
        raise UnknownFigureError(
            f"model {shown(model_id)} has no number in scope {shown(scope)} up to {moment(until)}: a scope is "
            "SUBJECT/SCOPE_KEY, as in /reports/models/params"
        )
    terms = told.at(until - 1)
    closed_until = min(read.snapshots.closed_until, until)
    first = _looks_back_to(terms, told, until)
    # Only terms with boards let snapshots have their sums by scope.
    by_snapshots = all(held.boards for held in read.leaderboard.terms.in_order if held.effective_from < until)
    # A live window also has what is scored already of the interval that it ends in.
    scored_until = FAR if at_ms is None else until
    past: list[tuple[SnapshotTakenData, Source]] = []
    rounds_from = closed_until
    if by_snapshots:
        past = [(data, source) for data, source in _past(read, model_id, first) if data.period_end <= until]
    else:
        rounds_from = _rounds_from(read, terms, told, until, scored_until)
    scored = scored_at(read.predictions, rounds_from, scored_until, ROUNDS_MAX)
    closing = [] if at_ms is None else closed_at(leaderboard, until, subject, scope_key)
    placed, moved_by = _read(read, appends, [*scored, *closing], terms, until)
    fault = missing_before(read.snapshots, first if by_snapshots else rounds_from)
    if told.holds_past(until - 1):
        fault = "not computed again: windows of a scope leave out what newcomers are given, and sums of periods do not"
    elif by_snapshots and (len(scored) >= ROUNDS_MAX or len(past) >= SNAPSHOTS_MAX):
        fault = "not computed again: it rests on too many rounds or periods"
    return PlaceFacts(
        model_id=model_id,
        until=until,
        moved_by=moved_by,
        scope=scope,
        windows_units=windows,
        past=past,
        rounds=[
            item
            for item in rounds_counted(placed, rounds_from, scored_until)
            if (item.event.data.subject, item.event.data.scope_key) == (subject, scope_key)
        ],
        rounds_fault=fault,
        rounds_from=0 if by_snapshots else rounds_from,
        closed_until=closed_until,
        told=told,
        configured=terms_source(placed, terms.contract_hash),
    )


def _looks_back_to(terms: Terms, told: TermsInForce, until: int, hours: int | None = None) -> int:
    """The start (ms) of the longest window that ends at `until` (ms), or of one of so many hours."""
    if hours is None:
        hours = max((window.hours for window in terms.windows), default=0)
    width = terms.snapshot_interval_ms
    return max(until // width * width - hours * HOUR_MS, told.comparable_since(until - 1))


def _past(read: Readable, model_id: str, first: int) -> list[tuple[SnapshotTakenData, Source]]:
    """The model's newest snapshots of periods that end after `first` (ms), oldest first; at most SNAPSHOTS_MAX."""
    rows = islice(read.snapshots.newest(first + 1, FAR, {model_id}), SNAPSHOTS_MAX)
    return [(snapshot, snapshot_source(read, at, snapshot)) for at, snapshot in rows][::-1]


def _rounds_from(read: Readable, terms: Terms, told: TermsInForce, until: int, scored_until: int) -> int:
    """The start (ms) of the longest window over sums whose rounds are not too many; `until` if those of all are."""
    for hours in sorted({window.hours for window in terms.summed_windows}, reverse=True):
        first = _looks_back_to(terms, told, until, hours)
        if len(scored_at(read.predictions, first, scored_until, ROUNDS_MAX)) < ROUNDS_MAX:
            return first
    return until


def _read(
    read: Readable, appends: ReadAppends, scored: Sequence[int], terms: Terms, until: int
) -> tuple[list[Placed[Event]], Source | None]:
    """(the events of the scored rounds and of the terms, the event that moved the windows' end to `until` (ms))."""
    placed = read_placed(
        appends,
        {
            "scores": sorted({*scored, *terms_told(read.leaderboard.terms, terms.contract_hash)}),
            "inputs": read.leaderboard.moved_at(),
        },
    )
    moves: list[Placed[ScoredUntil] | Placed[InputsUntil]] = [
        *of_kind(placed, ScoredUntil),
        *of_kind(placed, InputsUntil),
    ]
    return placed, next((moved.source for moved in moves if moved.event.data.until == until), None)
