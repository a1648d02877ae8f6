"""Opens the points that are due: compares a subject's records and the clock with the grid of its scopes.

Pure. Takes the state as it will be after the append (`NextState`), returns the inputs that open and the points that are
skipped. It notes both in `Then.handled`, so that no point is handled twice.
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
from coordinator.streams.inputs.feed_windows import input_of
from coordinator.streams.inputs.grid import grid_ceil, skip
from coordinator.streams.inputs.ground_truth import Record, TypedRecords, count_until, is_whole
from coordinator.streams.inputs.market import Market
from coordinator.streams.inputs.state import NextState
from coordinator.streams.log import ids


class Opened(NamedTuple):
    """The points that were due: those that open as inputs, and those that are skipped."""

    inputs: list[InputReceived]
    skipped: list[SkippedPoints]


def open_points(ahead: NextState, typed: TypedRecords) -> Opened:
    """Handle every point that is due. The inputs are in order of point and subject."""
    opened = Opened([], [])
    for start, until, terms in ahead.terms.spans():
        due = _due_points(ahead, terms, start, until, opened.skipped)
        for (point, subject), scopes in sorted(due.items(), key=lambda item: item[0]):
            input_or_reason = _input(point, subject, scopes, terms, ahead, typed)
            if isinstance(input_or_reason, InputReceived):
                opened.inputs.append(input_or_reason)
            else:
                opened.skipped.extend(skip(scope, point, input_or_reason) for scope in scopes)
    opened.inputs.sort(key=lambda event: (event.data.point, event.data.subject))
    return opened


def _due_points(
    ahead: NextState, terms: Terms, start: int, until: int, skipped: list[SkippedPoints]
) -> dict[tuple[int, str], list[Scope]]:
    """(point, subject) -> the scopes that ask there, under the terms that hold from `start` until `until` (ms).

    A point opens when a record at or after it has come for each member of the scope's subject.
    """
    due: dict[tuple[int, str], list[Scope]] = {}
    for scope in sorted(terms.scopes, key=lambda scope: (scope.order, scope.scope_key)):
        interval = scope.interval_seconds * 1000
        strips = [ahead.market.records(terms.feed, subject) for subject in scope.members]
        handled = ahead.handled.get(scope.subject, {}).get(scope.scope_key)
        if handled is None and not all(strips):
            continue  # the grid of a scope begins with the first record of its subject
        first = max(records[0].at for records in strips) if handled is None else handled + 1
        point = grid_ceil(max(first, start), interval)
        # Points whose deadline has passed are skipped, as one span: after an outage there may be thousands.
        oldest_fresh = ahead.now - terms.deadline_ms
        if point < oldest_fresh and point < until:
            last = min((oldest_fresh - 1) // interval * interval, (until - 1) // interval * interval)
            if last >= point:
                skipped.append(skip(scope, point, "the clock passed the deadline before a record came", last))
                _handle(ahead, scope, last)
                point = last + interval
        ready_until = min([records[-1].at if records else point - 1 for records in strips])
        while point < until and point <= ready_until:
            if any(_opening(records, point).data.backfilled for records in strips):
                # The record came late. What the market did after the point is known already: asking would be hindsight.
                skipped.append(skip(scope, point, "its record came late (backfilled)"))
            elif 0 in [count_until(records, point) for records in strips]:
                skipped.append(skip(scope, point, "no record up to the point"))
            else:
                due.setdefault((point, scope.subject), []).append(scope)
            _handle(ahead, scope, point)
            point += interval
    return due


def _handle(ahead: NextState, scope: Scope, point: int) -> None:
    ahead.handled.setdefault(scope.subject, {})[scope.scope_key] = point


def _opening(records: list[Record], point: int) -> Record:
    """The record that opens the point: the first with at >= point."""
    return records[count_until(records, point - 1)]


def _input(
    point: int, subject: str, scopes: list[Scope], terms: Terms, ahead: NextState, typed: TypedRecords
) -> InputReceived | str:
    """The input of a point, or the reason why the contract could not make one."""
    strips = {member: ahead.market.records(terms.feed, member) for member in scopes[0].members}
    opened_at = max(_opening(records, point).at for records in strips.values())
    contract = typed.contracts(terms.contract_hash)
    # Only records up to the point, although the record that opened it is newer.
    windows = {member: newest(records, point, contract.input_records) for member, records in strips.items()}
    payload, fault = input_of(typed, terms.contract_hash, windows)
    if fault:
        return fault
    input_id = ids.input_id(subject, point)
    first, history = contract.input_records_first, None
    if first > contract.input_records:
        since = {member: newest(records, point, first)[0].at for member, records in strips.items()}
        history = InputHistory(feed=terms.feed, since=since)
    return InputReceived(
        id=f"{input_id}:received",
        at=opened_at,
        data=InputReceivedData(
            input_id=input_id,
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


def newest(records: list[Record], point: int, count: int) -> list[Record]:
    """The last `count` records with at <= `point` (ms), or all of them if there are fewer."""
    end = count_until(records, point)
    return records[max(end - count, 0) : end]


def gaps_seen(
    data: InputReceivedData, market: Market, terms: Terms, records_seen: int
) -> InputOpenedOverGap | None:
    """The gaps in the records that this input was made from; None if there are none."""
    gaps: set[tuple[int, int]] = set()
    cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
    for subject in terms.members(data.subject):
        window = newest(market.records(terms.feed, subject), data.point, records_seen)
        if is_whole(window, market.whole_from(terms.feed, subject), data.point, cadence):
            continue
        seen = market.holes(terms.feed, subject).seen([record.at for record in window], data.point, cadence)
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
