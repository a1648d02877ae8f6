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
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    CrunchConfigured,
    Feed,
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
from coordinator.streams.inputs.grid import grid_ceil, skip
from coordinator.streams.inputs.ground_truth import OpenHorizon, at_of, horizons, resolve, unresolved
from coordinator.streams.inputs.market import Arrival, Key, Market, arrivals
from coordinator.streams.inputs.model_input import RECORDS_SEEN, encode_model_input
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.old_stage import OldStage, passing
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import EMPTY_DECISION_EVERY, NOTHING_DECIDED, Draft


class _Then:
    """The stage's state as it will be once an append of the feed is folded; the stage itself stays as it is."""

    def __init__(self, terms: TermsInForce, feeds: dict[Feed, int], market: Market) -> None:
        self.terms = terms
        self.feeds = feeds
        self.market = market
        self.clock = self.now = self.until = -1
        self.ticked = self.rehearsal = False
        self.open: list[OpenHorizon] = []


class InputStage(OldStage):
    """feeds -> inputs. `contracts` gives the contract of a hash, or raises OperatorError."""

    topic: ClassVar[str] = "inputs"
    drivers: ClassVar[tuple[str, ...]] = ("feeds",)
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "InputReceived", "InputResolved", "InputsUntil")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__()
        self._contracts = contracts
        self._queue: deque[tuple[Decision, list[Arrival]]] = deque()
        self._market = Market()
        # own memory
        self._feeds: dict[Feed, int] = {}
        """The feeds in use -> the place in `feeds` from which on their records count."""
        self._deciding = -1
        self._terms = TermsInForce()
        self._handled: dict[tuple[str, str], int] = {}
        self._open: list[OpenHorizon] = []
        self._until = -1
        self._clock = -1
        self._rehearsal = False

    # --- folding -----------------------------------------------------------------------------------

    def absorb(self, decision: Decision) -> None:
        """Keep what is decided; what is not yet waits for `decide`."""
        told = arrivals(decision)
        if self.decided("feeds", (decision.offset, len(decision.events) - 1)):
            self._fold(decision.offset, told)
        else:
            self._queue.append((decision, told))

    def remember(self, draft: Draft | Decision) -> None:
        """Own events; terms name a feed whose records count from the place of their append on."""
        self._deciding = draft.upto.get("feeds", NOTHING_DECIDED)[0]
        super().remember(draft)

    def fold_decided(self, draft: Draft) -> None:
        """The appends that are decided leave the queue: what they told is kept, what nobody needs any more is not."""
        while self._queue and self._queue[0][0].offset <= draft.upto["feeds"][0]:
            decision, told = self._queue.popleft()
            self._fold(decision.offset, told)

    def _fold(self, offset: int, told: list[Arrival]) -> None:
        self._market.take(_of_feeds(told, self._feeds, offset))
        self._market.trim(_entries(self._open, self._terms), self._feeds, self._clock)

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, what was opened, what was resolved, how far."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
                self._feeds.setdefault(event.data.feed, self._deciding)
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
                self._feeds = _in_use(self._feeds, self._terms, data.until)
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

    # --- deciding ----------------------------------------------------------------------------------

    def decide(self, *_unused: object) -> Draft | None:
        """What the oldest waiting append of the feed makes: inputs opened, truths, the watermark."""
        if not self._queue:
            return None
        decision, told = self._queue[0]
        upto = (decision.offset, len(decision.events) - 1)
        configured = [event for event in decision.events if isinstance(event, CrunchConfigured)]
        then = self._then(decision, told, configured)
        events: list[AnyEvent] = [*configured, *self._events(decision, then)]
        if not events and decision.offset - self.upto["feeds"][0] < EMPTY_DECISION_EVERY:
            return passing("feeds", upto)
        entries = _entries(then.open, then.terms)
        need = then.market.needed(entries, _in_use(then.feeds, then.terms, then.until), then.clock)
        return Draft(events, {"feeds": upto}, {"feeds": need or decision.after()})

    def _then(self, decision: Decision, told: list[Arrival], configured: list[CrunchConfigured]) -> _Then:
        terms, feeds = TermsInForce(), dict(self._feeds)
        for event in self._terms.events:
            terms.add(event)
        for event in configured:
            terms.add(event)
            feeds.setdefault(event.data.feed, decision.offset)
        then = _Then(terms, feeds, self._market.after(_of_feeds(told, feeds, decision.offset)))
        then.open, then.until, then.rehearsal = self._open, self._until, self._rehearsal
        ticks = [event for event in decision.events if isinstance(event, ClockTicked)]
        if ticks:
            then.ticked, then.rehearsal = True, ticks[-1].data.rehearsal
        then.clock = max([self._clock, *(tick.at for tick in ticks)])
        then.now = max(then.clock, then.market.newest_at())
        return then

    def _events(self, decision: Decision, then: _Then) -> Iterator[AnyEvent]:
        if not then.terms:
            return
        market, terms_in_force, clock, now = then.market, then.terms, then.clock, then.now
        opened: list[InputReceived] = []
        skipped: list[SkippedPoints] = []
        handled = dict(self._handled)
        for start, until, terms in terms_in_force.spans():
            self._open_points(terms, start, until, then, handled, opened, skipped)
        opened.sort(key=lambda event: (event.data.point, event.data.subject))
        for one_opened in opened:
            yield one_opened
            gaps = _gaps_seen(one_opened.data, market, terms_in_force.at(one_opened.data.point))
            if gaps is not None:
                yield gaps
        still_open: list[OpenHorizon] = []
        resolved: list[InputResolved] = []
        for one in sorted([*self._open, *(h for event in opened for h in horizons(event.data))]):
            held = terms_in_force.at(one.point)
            change = terms_in_force.feed_change(one.point, one.subject, now)
            answer = None
            if one.resolvable_at <= now or change is not None:
                records = market.records(held.feed, one.subject)
                holes = market.holes(held.feed, one.subject)
                answer = resolve(one, records, holes, held, self._contracts, clock, now)
                if answer is None and change is not None:
                    answer = unresolved(one, now, f"the feed was changed: {change}")
            if answer is None:
                still_open.append(one)
            else:
                resolved.append(answer)
        then.open = still_open
        left = {one.input_id for one in still_open}
        seen = Counts(truth.data.input_id for truth in resolved)
        for truth in resolved:
            seen[truth.data.input_id] -= 1
            last = truth.data.input_id not in left and seen[truth.data.input_id] == 0
            data = msgspec.structs.replace(truth.data, last=last)
            yield msgspec.structs.replace(truth, data=data)
        if then.ticked or skipped:
            then.until = self._watermark(clock, still_open, handled, terms_in_force)
            yield InputsUntil(
                id=f"inputs-until/{decision.events[-1].id}",
                at=max(clock, 0),
                data=InputsUntilData(
                    until=then.until, clock=clock, rehearsal=then.rehearsal, skipped=skipped
                ),
            )

    def _open_points(
        self,
        terms: Terms,
        start: int,
        until: int,
        then: _Then,
        handled: dict[tuple[str, str], int],
        opened: list[InputReceived],
        skipped: list[SkippedPoints],
    ) -> None:
        due: dict[tuple[int, str], list[Scope]] = {}
        for scope in sorted(terms.scopes, key=lambda one: (one.order, one.scope_key)):
            key = (scope.subject, scope.scope_key)
            interval = scope.interval_seconds * 1000
            records = then.market.records(terms.feed, scope.subject)
            if key in handled:
                point = grid_ceil(max(handled[key] + 1, start), interval)
            elif records:
                point = grid_ceil(max(records[0].at, start), interval)
            else:
                continue
            oldest_fresh = then.now - terms.deadline_ms
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
            made = self._input(point, subject, scopes, terms, then)
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
        then: _Then,
    ) -> InputReceived | str:
        """The input of a point, or the reason why the contract could not make one."""
        records = then.market.records(terms.feed, subject)
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
                rehearsal=then.rehearsal,
                payload=msgspec.Raw(payload),
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


def _of_feeds(told: list[Arrival], feeds: Mapping[Feed, int], offset: int) -> list[Arrival]:
    """What is of a feed that terms name, and stands behind where they first did."""
    return [one for one in told if one.key[0] in feeds and offset >= feeds[one.key[0]]]


def _in_use(feeds: Mapping[Feed, int], terms: TermsInForce, until: int) -> dict[Feed, int]:
    """The feeds that an input up to its last horizon, or a later one, still needs: `until` is the watermark."""
    used = {
        held.feed
        for _, end, held in terms.spans()
        if until < end + max((scope.horizon_seconds for scope in held.scopes), default=0) * 1000
    }
    return {feed: since for feed, since in feeds.items() if feed in used}


def _entries(open_horizons: list[OpenHorizon], terms: TermsInForce) -> dict[Key, int]:
    """The oldest point that a truth is waited for, by feed and subject."""
    entries: dict[Key, int] = {}
    for one in open_horizons:
        key = (terms.at(one.point).feed, one.subject)
        entries[key] = min(entries.get(key, one.point), one.point)
    return entries


def _gaps_seen(data: InputReceivedData, market: Market, terms: Terms) -> InputOpenedOverGap | None:
    """What the models of this input were shown with holes in it, if there were any."""
    records = market.records(terms.feed, data.subject)
    ats = [record.at for record in records[: bisect_right(records, data.point, key=at_of)][-RECORDS_SEEN:]]
    cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
    gaps = market.holes(terms.feed, data.subject).seen(ats, data.point, cadence)
    if not gaps:
        return None
    return InputOpenedOverGap(
        id=f"{data.input_id}:over-gap",
        at=data.deadline_at - terms.deadline_ms,
        data=InputOpenedOverGapData(
            input_id=data.input_id, subject=data.subject, point=data.point, gaps=gaps
        ),
    )
