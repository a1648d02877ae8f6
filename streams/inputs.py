"""Inputs: the feed cut into questions, and later the answers that the market gave.

Reads `feeds`, emits `inputs`, one decision per append of the feed. Points lie on a grid in event time.
Point t opens on its subject's first record with at >= t, from records with at <= t. When the clock
passes t + deadline first, the point is skipped and named: an outage neither floods nor predicts with
hindsight. Truth for input time t and horizon h: the last record with at <= t, then all with
t < at <= t + h. The window is complete when a record at or past its end was seen and none of its own is
missing; what is missing is waited for as the contract says, and then there is no truth, with that reason. An
input that opens while records of its window are missing is followed by InputOpenedOverGap.

What is open, what was opened last and the terms come from the stage's own events; only the records and the holes
between them come from the feed, so `need` is the oldest of those kept.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec

from coordinator.streams import ids
from coordinator.streams.blame import AUTHORS_ERRORS
from coordinator.streams.contract import CrunchContract
from coordinator.streams.counting import Decision
from coordinator.streams.envelope import Need
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    CrunchConfigured,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    InputOpenedOverGap,
    InputOpenedOverGapData,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputScope,
    InputsUntil,
    InputsUntilData,
    Scope,
    SkippedPoints,
    Terms,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.grid import grid_ceil, skip
from coordinator.streams.ground_truth import OpenHorizon, Record, at_of, horizons, resolve
from coordinator.streams.holes import Holes, Span
from coordinator.streams.model_input import RECORDS_SEEN, encode_model_input
from coordinator.streams.reasons import as_reason
from coordinator.streams.stage import EMPTY_DECISION_EVERY, Draft, Stage
from coordinator.streams.terms import TermsInForce

NO_HOLES = Holes()


class InputStage(Stage):
    """feeds -> inputs. `contracts` gives the contract of a hash, or raises OperatorError."""

    topic: ClassVar[str] = "inputs"
    drivers: ClassVar[tuple[str, ...]] = ("feeds",)
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "InputReceived", "InputResolved", "InputsUntil")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__()
        self._contracts = contracts
        self._queue: deque[Decision] = deque()
        self._records: dict[str, list[Record]] = {}
        self._holes: dict[str, Holes] = {}
        # own memory
        self._terms = TermsInForce()
        self._handled: dict[tuple[str, str], int] = {}
        self._open: list[OpenHorizon] = []
        self._until = -1
        self._clock = -1
        self._rehearsal = False

    # --- folding -----------------------------------------------------------------------------------

    def absorb(self, decision: Decision) -> None:
        """Keep the records; what is not yet decided waits for `decide`."""
        if self.decided("feeds", (decision.offset, len(decision.events) - 1)):
            for event in decision.events:
                self._keep_any(event, decision)
            self._trim()
        else:
            self._queue.append(decision)

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, what was opened, what was resolved, how far."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
            case InputReceived(data=data):
                for scope in data.scopes:
                    self._handle(data.subject, scope.scope_key, data.point)
                for one in horizons(data):
                    insort(self._open, one)
            case InputResolved(data=data):
                self._open = [
                    one
                    for one in self._open
                    if (one.input_id, one.horizon_seconds) != (data.input_id, data.horizon_seconds)
                ]
            case InputsUntil(data=data):
                self._until, self._clock, self._rehearsal = data.until, data.clock, data.rehearsal
                for left in data.skipped:
                    self._handle(left.subject, left.scope_key, left.until_point)
            case _:
                pass

    def _handle(self, subject: str, scope_key: str, point: int) -> None:
        """A decision names what it skipped after what it opened, so a skipped point may be the older one."""
        key = (subject, scope_key)
        self._handled[key] = max(point, self._handled.get(key, point))

    def open_input_ids(self) -> set[str]:
        """The inputs whose truth is still waited for."""
        return {one.input_id for one in self._open}

    def _keep_any(self, event: AnyEvent, decision: Decision) -> None:
        match event:
            case FeedRecordReceived():
                self._keep(event, decision)
            case FeedGapFound(at=at, data=data) if self._is_ours(data, at):
                holes = self._holes.setdefault(data.subject, Holes())
                holes.found(data, decision.first_offset, decision.before)
            case FeedGapClosed(at=at, data=data) if self._is_ours(data, at):
                holes = self._holes.setdefault(data.subject, Holes())
                holes.closed(data, decision.first_offset, decision.before)
            case _:
                pass

    def _is_ours(self, data: FeedRecordData | FeedGapData | FeedGapClosedData, at: int) -> bool:
        """Is it of the feed that makes inputs and truths?"""
        if not self._terms:
            return True
        feed = self._terms.at(at).feed
        return (data.source, data.kind, data.granularity) == (feed.source, feed.kind, feed.granularity)

    def _keep(self, event: FeedRecordReceived, decision: Decision) -> None:
        data = event.data
        if not self._is_ours(data, event.at):
            return
        records = self._records.setdefault(data.subject, [])
        record = Record(event.at, data, decision.first_offset, decision.before)
        for i in range(bisect_right(records, event.at, key=at_of) - 1, -1, -1):
            if records[i].at < event.at:
                break
            if records[i].data.ts_event == data.ts_event:
                if records[i].data.revision < data.revision:
                    records[i] = record
                return
        insort(records, record, key=at_of)

    def _trim(self) -> None:
        """Keep the last RECORDS_SEEN records before the next point and all that an open truth needs."""
        entries: dict[str, int] = {}
        for one in self._open:
            entries[one.subject] = min(entries.get(one.subject, one.point), one.point)
        for subject, records in self._records.items():
            keep = max(0, len(records) - RECORDS_SEEN - 1)
            if subject in entries:
                keep = min(keep, max(0, bisect_right(records, entries[subject], key=at_of) - 1))
            del records[:keep]
        for subject, holes in self._holes.items():
            kept = self._records.get(subject)
            holes.trim(kept[0].at if kept else self._clock)

    # --- deciding ----------------------------------------------------------------------------------

    def decide(self) -> Draft | None:
        """What the oldest waiting append of the feed makes: inputs opened, truths, the watermark."""
        while self._queue:
            decision = self._queue[0]
            upto = (decision.offset, len(decision.events) - 1)
            if self.decided("feeds", upto):
                self._queue.popleft()
                continue
            events = list(self._events(decision))
            self._trim()
            last = self.upto["feeds"][0]
            if not events and decision.offset - last < EMPTY_DECISION_EVERY:
                self._queue.popleft()
                continue
            return Draft(events, {"feeds": upto}, {"feeds": self._needed(decision)})
        return None

    def _needed(self, decision: Decision) -> Need:
        kept: list[Record | Span] = [one for records in self._records.values() for one in records]
        kept += [one for holes in self._holes.values() for one in holes.spans()]
        oldest = min(kept, key=lambda one: one.offset, default=None)
        return decision.after() if oldest is None else oldest.before

    def _events(self, decision: Decision) -> Iterator[AnyEvent]:
        clock, rehearsal, ticked = self._clock, self._rehearsal, False
        new_terms = TermsInForce()
        for known in self._terms.events:
            new_terms.add(known)
        for event in decision.events:
            if isinstance(event, CrunchConfigured):
                new_terms.add(event)
                yield event
            elif isinstance(event, ClockTicked):
                clock, rehearsal, ticked = max(clock, event.at), event.data.rehearsal, True
            else:
                self._keep_any(event, decision)
        if not new_terms:
            return
        now = max([clock, *(records[-1].at for records in self._records.values() if records)])
        opened: list[InputReceived] = []
        skipped: list[SkippedPoints] = []
        handled = dict(self._handled)
        for start, until, terms in new_terms.spans():
            self._open_points(terms, start, until, now, handled, opened, skipped, rehearsal)
        opened.sort(key=lambda event: (event.data.point, event.data.subject))
        for one_opened in opened:
            yield one_opened
            gaps = self._gaps_seen(one_opened.data, new_terms.at(one_opened.data.point))
            if gaps is not None:
                yield gaps
        still_open: list[OpenHorizon] = []
        due = sorted([*self._open, *(h for event in opened for h in horizons(event.data))])
        resolved: list[InputResolved] = []
        for one in due:
            answer = resolve(
                one,
                self._records.get(one.subject, []),
                self._holes.get(one.subject, NO_HOLES),
                new_terms.at(one.point),
                self._contracts,
                clock,
                now,
            )
            if answer is None:
                still_open.append(one)
            else:
                resolved.append(answer)
        left = {one.input_id for one in still_open}
        seen = Counts(truth.data.input_id for truth in resolved)
        for truth in resolved:
            seen[truth.data.input_id] -= 1
            last = truth.data.input_id not in left and seen[truth.data.input_id] == 0
            data = msgspec.structs.replace(truth.data, last=last)
            yield msgspec.structs.replace(truth, data=data)
        if ticked or skipped:
            watermark = self._watermark(clock, still_open, handled, new_terms)
            yield InputsUntil(
                id=f"inputs-until/{decision.events[-1].id}",
                at=max(clock, 0),
                data=InputsUntilData(until=watermark, clock=clock, rehearsal=rehearsal, skipped=skipped),
            )

    def _open_points(
        self,
        terms: Terms,
        start: int,
        until: int,
        now: int,
        handled: dict[tuple[str, str], int],
        opened: list[InputReceived],
        skipped: list[SkippedPoints],
        rehearsal: bool,  # noqa: FBT001
    ) -> None:
        due: dict[tuple[int, str], list[Scope]] = {}
        for scope in sorted(terms.scopes, key=lambda one: (one.order, one.scope_key)):
            key = (scope.subject, scope.scope_key)
            interval = scope.interval_seconds * 1000
            records = self._records.get(scope.subject, [])
            if key in handled:
                point = grid_ceil(max(handled[key] + 1, start), interval)
            elif records:
                point = grid_ceil(max(records[0].at, start), interval)
            else:
                continue
            oldest_fresh = now - terms.deadline_ms
            if point < oldest_fresh and point < until:
                last = min((oldest_fresh - 1) // interval * interval, (until - 1) // interval * interval)
                if last >= point:
                    skipped.append(
                        skip(scope, point, "the clock passed the deadline before a record came", last)
                    )
                    handled[key] = last
                    point = last + interval
            while point < until and records and records[-1].at >= point:
                i = bisect_right(records, point - 1, key=at_of)
                if records[i].data.backfilled:  # came late: to open on it would be hindsight
                    skipped.append(skip(scope, point, "its record came late (backfilled)"))
                elif bisect_right(records, point, key=at_of) == 0:
                    skipped.append(skip(scope, point, "no record up to the point"))
                else:
                    due.setdefault((point, scope.subject), []).append(scope)
                handled[key] = point
                point += interval
        for (point, subject), scopes in sorted(due.items(), key=lambda item: item[0]):
            made = self._input(point, subject, scopes, terms, rehearsal)
            if isinstance(made, InputReceived):
                opened.append(made)
            else:
                skipped.extend(skip(scope, point, made) for scope in scopes)

    def _input(
        self,
        point: int,
        subject: str,
        scopes: list[Scope],
        terms: Terms,
        rehearsal: bool,  # noqa: FBT001
    ) -> InputReceived | str:
        """The input of a point, or the reason why the contract could not make one."""
        records = self._records[subject]
        opened_at = records[bisect_right(records, point - 1, key=at_of)].at
        contract = self._contracts(terms.contract_hash)
        window = records[: bisect_right(records, point, key=at_of)][-RECORDS_SEEN:]
        try:
            typed = [record.as_type(terms.contract_hash, contract.raw_input_type) for record in window]
        except AUTHORS_ERRORS as error:  # its fault is recorded, and the node goes on
            return as_reason(f"raw_input_type: {type(error).__name__}: {error}", 500)
        payload, fault = encode_model_input(contract, typed)
        if fault:
            return fault
        the_id = ids.input_id(subject, point)
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
                rehearsal=rehearsal,
                payload=msgspec.Raw(payload),
            ),
        )

    def _gaps_seen(self, data: InputReceivedData, terms: Terms) -> InputOpenedOverGap | None:
        """What the models of this input were shown with holes in it, if there were any."""
        records = self._records[data.subject]
        ats = [
            record.at for record in records[: bisect_right(records, data.point, key=at_of)][-RECORDS_SEEN:]
        ]
        cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
        gaps = self._holes.get(data.subject, NO_HOLES).seen(ats, data.point, cadence)
        if not gaps:
            return None
        return InputOpenedOverGap(
            id=f"{data.input_id}:over-gap",
            at=data.deadline_at - terms.deadline_ms,
            data=InputOpenedOverGapData(
                input_id=data.input_id, subject=data.subject, point=data.point, gaps=gaps
            ),
        )

    def _watermark(
        self,
        clock: int,
        still_open: list[OpenHorizon],
        handled: dict[tuple[str, str], int],
        terms: TermsInForce,
    ) -> int:
        times = [clock, *(one.resolvable_at for one in still_open)]
        for start, until, held in terms.spans():
            for scope in held.scopes:
                done = handled.get((scope.subject, scope.scope_key))
                horizon = scope.horizon_seconds * 1000
                if done is None:
                    # Its first record may still come and open a point up to the deadline ago.
                    times.append(max(clock - held.deadline_ms, start) + horizon)
                    continue
                point = grid_ceil(max(done + 1, start), scope.interval_seconds * 1000)
                if point < until:
                    times.append(point + horizon)
        return max(self._until, min(times))
