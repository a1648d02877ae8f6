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

from collections import Counter as Counts
from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import AnyEvent, InputReceived, InputResolved, InputsUntil, InputsUntilData
from coordinator.streams.inputs.grid import grid_ceil
from coordinator.streams.inputs.ground_truth import Side, TypedRecords, resolve, unresolved
from coordinator.streams.inputs.market import Market
from coordinator.streams.inputs.open_horizons import OpenHorizon, horizons
from coordinator.streams.inputs.opening import gaps_seen, open_points
from coordinator.streams.inputs.state import (
    NO_APPEND,
    Append,
    OwnInputs,
    Then,
    append_of,
    of_feeds,
    records_kept,
    then,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, Stage, State, Told


class InputState(State):
    """Own events, and the market as far as they need it."""

    own: OwnInputs = msgspec.field(default_factory=OwnInputs)
    market: Market = msgspec.field(default_factory=Market)


class InputStage(Stage[InputState]):
    """feeds -> inputs. `contracts` gives the contract of a hash, or raises OperatorError."""

    topic: ClassVar[str] = "inputs"
    drivers: ClassVar[tuple[str, ...]] = ("feeds",)
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "InputReceived", "InputResolved", "InputsUntil")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__(InputState())
        self._typed = TypedRecords(contracts)

    def unfold(self, decision: Decision) -> Iterator[Told]:
        """An append of the feed is decided as a whole; one without events, by which a feed only says where it stands,
        decides nothing.
        """
        if not decision.events:
            return
        position = (decision.offset, len(decision.events) - 1)
        yield Told("feeds", append_of(decision), position, decision.before, decision.after())

    def decide(self, state: InputState, told: Told) -> Draft | None:
        """Terms, the inputs that open, the truths that are due, how far all is resolved."""
        append: Append = told.event
        ahead = then(state.own, state.market, append)
        events: list[AnyEvent] = [*append.configured]
        if ahead.terms:
            events += self._made(append, ahead)
        if not events:
            return None
        need = ahead.needed() or told.after
        if any(isinstance(event, InputReceived) and event.data.history for event in events):
            # Whoever makes a model's first tick begins to read here; this append may hold many records after the point.
            before = then(state.own, state.market, NO_APPEND).needed() or told.before
            need = min(before, need, key=lambda one: one.offset)
        return Draft(events, {"feeds": told.position}, {"feeds": need})

    def fold(self, state: InputState, told: Told) -> None:
        """Own events; of an append that is decided, what an open truth or the next input still needs."""
        own, market = state.own, state.market
        if told.topic == self.topic:
            own.evolve(told.event, deciding=state.upto["feeds"][0])
            return
        market.take(of_feeds(told.event, own.feeds))
        kept = records_kept(own.feeds, own.terms, own.until)
        market.trim(own.open.entries(own.terms), kept, own.clock)
        self._typed.forget(market.count())

    def needed(self, state: InputState, told: Told) -> dict[str, Need]:
        """The oldest record or hole that is kept once the append is folded."""
        return {"feeds": then(state.own, state.market, told.event).needed() or told.after}

    # --- what an append makes ----------------------------------------------------------------------

    def _made(self, append: Append, ahead: Then) -> Iterator[AnyEvent]:
        opened = open_points(ahead, self._typed)
        for event in opened.inputs:
            yield event
            terms = ahead.terms.at(event.data.point)
            seen = self._typed.contracts(terms.contract_hash).input_records
            gaps = gaps_seen(event.data, ahead.market, terms, seen)
            if gaps is not None:
                yield gaps
        waiting = [one for event in opened.inputs for one in horizons(event.data)]
        yield from self._resolved(ahead, waiting)
        if append.ticks or opened.skipped:
            ahead.until = _watermark(ahead)
            yield InputsUntil(
                id=f"inputs-until/{append.last_id}",
                at=max(ahead.clock, 0),
                data=InputsUntilData(
                    until=ahead.until, clock=ahead.clock, rehearsal=ahead.rehearsal, skipped=opened.skipped
                ),
            )

    def _resolved(self, ahead: Then, opened: list[OpenHorizon]) -> Iterator[InputResolved]:
        """The truths that are due, `opened` ones too; `ahead.open` has those that stay afterwards."""
        changes = [start for start, _, _ in ahead.terms.spans()][1:]
        changed_at = max((start for start in changes if start <= ahead.now), default=-1)
        due = ahead.open.due(ahead.now, changed_at)
        due += [one for one in opened if one.resolvable_at <= ahead.now or one.point < changed_at]
        resolved: list[tuple[OpenHorizon, InputResolved]] = []
        for one in sorted(due):
            answer = self._answer(ahead, one)
            if answer is not None:
                resolved.append((one, answer))
        ahead.open = ahead.open.after(opened, [one for one, _ in resolved])
        left = Counts(one.input_id for one, _ in resolved)
        for one, answer in resolved:
            left[one.input_id] -= 1
            last = not left[one.input_id] and not ahead.open.waits(one.subject, one.point)
            yield msgspec.structs.replace(answer, data=msgspec.structs.replace(answer.data, last=last))

    def _answer(self, ahead: Then, one: OpenHorizon) -> InputResolved | None:
        held = ahead.terms.at(one.point)
        change = ahead.terms.feed_change(one.point, one.subject, ahead.now)
        if one.resolvable_at > ahead.now and change is None:
            return None
        sides = [
            Side(subject, ahead.market.records(held.feed, subject), ahead.market.holes(held.feed, subject))
            for subject in held.members(one.subject)
        ]
        answer = resolve(one, sides, held, self._typed, ahead.clock, ahead.now)
        if answer is None and change is not None:
            return unresolved(one, ahead.now, f"the feed was changed: {change}")
        return answer


def _watermark(ahead: Then) -> int:
    """Up to when every truth is told and none will open any more, in ms."""
    earliest = ahead.open.earliest()
    times = [ahead.clock] if earliest is None else [ahead.clock, earliest]
    for start, until, held in ahead.terms.spans():
        for scope in held.scopes:
            done = ahead.handled.get(scope.subject, {}).get(scope.scope_key)
            horizon = scope.horizon_seconds * 1000
            if done is None:
                # Its first record may still come and open a point up to the deadline ago.
                times.append(max(ahead.clock - held.deadline_ms, start) + horizon)
                continue
            point = grid_ceil(max(done + 1, start), scope.interval_seconds * 1000)
            if point < until:
                times.append(point + horizon)
    return max(ahead.until, min(times))
