"""Which points open: a subject's records and the clock against the grid of its scopes; and the input of a point.

Pure. Reads the state as it will be, gives inputs and the points that were left out; what is handled is noted there.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from coordinator.streams.events import (
    GapSpan,
    InputHistory,
    InputOpenedOverGap,
    InputOpenedOverGapData,
    InputReceived,
    InputReceivedData,
    InputScope,
    Scope,
    SkippedPoints,
    Terms,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.inputs.grid import grid_ceil, skip
from coordinator.streams.inputs.ground_truth import Record, TypedRecords, count_until
from coordinator.streams.inputs.market import Market
from coordinator.streams.inputs.state import Then
from coordinator.streams.inputs.windows import input_of
from coordinator.streams.log import ids


class Opened(NamedTuple):
    """What became of the points that were due."""

    inputs: list[InputReceived]
    skipped: list[SkippedPoints]


def open_points(ahead: Then, typed: TypedRecords) -> Opened:
    """The inputs in order of point and subject, and the points left out; `ahead.handled` has them all afterwards."""
    opened = Opened([], [])
    for start, until, terms in ahead.terms.spans():
        due = _due_points(ahead, terms, start, until, opened.skipped)
        for (point, subject), scopes in sorted(due.items(), key=lambda item: item[0]):
            made = _input(point, subject, scopes, terms, ahead, typed)
            if isinstance(made, InputReceived):
                opened.inputs.append(made)
            else:
                opened.skipped.extend(skip(scope, point, made) for scope in scopes)
    opened.inputs.sort(key=lambda event: (event.data.point, event.data.subject))
    return opened


def _due_points(
    ahead: Then, terms: Terms, start: int, until: int, skipped: list[SkippedPoints]
) -> dict[tuple[int, str], list[Scope]]:
    """(point, subject) -> the scopes that ask there, of the terms that hold from `start` until `until`."""
    due: dict[tuple[int, str], list[Scope]] = {}
    for scope in sorted(terms.scopes, key=lambda one: (one.order, one.scope_key)):
        interval = scope.interval_seconds * 1000
        strips = [ahead.market.records(terms.feed, subject) for subject in scope.members]
        handled = ahead.handled.get(scope.subject, {}).get(scope.scope_key)
        if handled is None and not all(strips):
            continue
        first = max(records[0].at for records in strips) if handled is None else handled + 1
        point = grid_ceil(max(first, start), interval)
        oldest_fresh = ahead.now - terms.deadline_ms
        if point < oldest_fresh and point < until:
            last = min((oldest_fresh - 1) // interval * interval, (until - 1) // interval * interval)
            if last >= point:
                skipped.append(skip(scope, point, "the clock passed the deadline before a record came", last))
                _handle(ahead, scope, last)
                point = last + interval
        while point < until and all(records and records[-1].at >= point for records in strips):
            if any(_opening(records, point).data.backfilled for records in strips):
                # It came late: to open on it would be hindsight.
                skipped.append(skip(scope, point, "its record came late (backfilled)"))
            elif any(count_until(records, point) == 0 for records in strips):
                skipped.append(skip(scope, point, "no record up to the point"))
            else:
                due.setdefault((point, scope.subject), []).append(scope)
            _handle(ahead, scope, point)
            point += interval
    return due


def _handle(ahead: Then, scope: Scope, point: int) -> None:
    ahead.handled.setdefault(scope.subject, {})[scope.scope_key] = point


def _opening(records: list[Record], point: int) -> Record:
    """The first record with at >= point."""
    return records[count_until(records, point - 1)]


def _input(
    point: int, subject: str, scopes: list[Scope], terms: Terms, ahead: Then, typed: TypedRecords
) -> InputReceived | str:
    """The input of a point, or the reason why the contract could not make one."""
    strips = {one: ahead.market.records(terms.feed, one) for one in scopes[0].members}
    opened_at = max(_opening(records, point).at for records in strips.values())
    contract = typed.contracts(terms.contract_hash)
    known = {one: records[: count_until(records, point)] for one, records in strips.items()}
    windows = {one: records[-contract.input_records :] for one, records in known.items()}
    payload, fault = input_of(typed, terms.contract_hash, windows)
    if fault:
        return fault
    the_id = ids.input_id(subject, point)
    first, history = contract.input_records_first, None
    if first > contract.input_records:
        since = {one: records[-first:][0].at for one, records in known.items()}
        history = InputHistory(feed=terms.feed, since=since)
    return InputReceived(
        id=f"{the_id}:received",
        at=opened_at,
        data=InputReceivedData(
            input_id=the_id,
            subject=subject,
            point=point,
            deadline_at=opened_at + terms.deadline_ms,
            scopes=[
                InputScope(
                    scope_key=scope.scope_key,
                    horizon_seconds=scope.horizon_seconds,
                    step_seconds=scope.step_seconds,
                    resolvable_at=point + scope.horizon_seconds * 1000,
                )
                for scope in scopes
            ],
            contract_hash=terms.contract_hash,
            rehearsal=ahead.rehearsal,
            payload=msgspec.Raw(payload),
            history=history,
        ),
    )


def gaps_seen(
    data: InputReceivedData, market: Market, terms: Terms, records_seen: int
) -> InputOpenedOverGap | None:
    """What the models of this input were shown with holes in it, if there were any."""
    gaps: set[tuple[int, int]] = set()
    cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
    for subject in terms.members(data.subject):
        records = market.records(terms.feed, subject)
        window = records[: count_until(records, data.point)][-records_seen:]
        seen = market.holes(terms.feed, subject).seen([one.at for one in window], data.point, cadence)
        gaps.update((gap.from_ms, gap.until_ms) for gap in seen)
    if not gaps:
        return None
    return InputOpenedOverGap(
        id=f"{data.input_id}:over-gap",
        at=data.deadline_at - terms.deadline_ms,
        data=InputOpenedOverGapData(
            input_id=data.input_id,
            subject=data.subject,
            point=data.point,
            gaps=[GapSpan(from_ms=start, until_ms=end) for start, end in sorted(gaps)],
        ),
    )
