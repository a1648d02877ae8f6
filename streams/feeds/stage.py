"""Feeds: what the outside delivered, once each, and what time it is.

The outside drives it: records from sources, ticks of a clock; and `commands`, by which an operator gives records of
the past. Emits `feeds`. The same record from stream and history is one event (its id); a corrected record carries a
higher revision, given here where its source numbers none. What comes after a later record of its subscription is
marked `backfilled`, so order per subscription holds for all else; what comes so late that nobody can tell it from a
repeat is refused (`known.py`). Ticks never go back, and a tick says whether its
time is lived or replayed. Another feed or other subjects hold at once, all other terms from the next checkpoint
boundary on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from coordinator.streams.events import (
    AnyEvent,
    ApplyContract,
    ClockTicked,
    ClockTickedData,
    FeedStateChanged,
    FeedStateChangedData,
    RecordFeed,
    Terms,
)
from coordinator.streams.feeds.given import given_fault
from coordinator.streams.feeds.made import new_closings, new_gaps, new_records, new_terms
from coordinator.streams.feeds.state import FeedMemory, GapClosing, GapSaid
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import Draft, Stage, State, Told
from coordinator.streams.ports import FeedRecord, Subscription

GONE = "history has no such record"


class Offered(msgspec.Struct, frozen=True):
    """What came at once from the outside. `tick_at` is the time, in ms; `rehearsal`: it is replayed. Each of the states
    is (source, state, reason).
    """

    records: Sequence[FeedRecord]
    tick_at: int | None
    rehearsal: bool
    gaps: Sequence[GapSaid] = ()
    closings: Sequence[GapClosing] = ()
    states: Sequence[tuple[str, str, str]] = ()


class Wanted(msgspec.Struct, frozen=True):
    """The terms that the node is to go by; `at` is when they are told, in ms."""

    terms: Terms
    at: int


class FeedState(State):
    """All of it follows from the stage's own events."""

    own: FeedMemory = msgspec.field(default_factory=FeedMemory)


class FeedStage(Stage[FeedState]):
    """The outside and commands -> feeds. `offer`, `replayed` and `configure` make the outside's drafts."""

    topic: ClassVar[str] = "feeds"
    drivers: ClassVar[tuple[str, ...]] = ("commands",)
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "FeedRecordReceived",
        "FeedGapFound",
        "FeedGapClosed",
        "FeedStateChanged",
        "ClockTicked",
    )

    def __init__(self, terms_of: Callable[[ApplyContract], Terms] | None = None) -> None:
        """`terms_of` gives the terms of a contract that an operator applies, or raises OperatorError."""
        super().__init__(FeedState())
        self._terms_of = terms_of

    @property
    def own(self) -> FeedMemory:
        """What the feed is known to hold."""
        return self.state.own

    def decide(self, state: FeedState, told: Told) -> Draft | None:
        """What the outside makes, or a command. The draft of a command about something else is empty, and says that it
        was read. Raises OperatorError for terms that cannot be.
        """
        match told.event:
            case Offered() as offered:
                events = _told(state.own, offered)
            case Wanted(terms=terms, at=at):
                events = new_terms(state.own, terms, at)
            case command:
                events, _ = self._heard(state.own, command)
                return Draft(events, {told.topic: told.position}, self.needed(state, told))
        return Draft(events, {}, {}) if events else None

    def fold(self, state: FeedState, told: Told) -> None:
        """Own events. Of a command nothing is kept once it is decided."""
        if told.topic == self.topic:
            state.own.evolve(told.event)

    # --- commands ----------------------------------------------------------------------------------

    def refused(self) -> list[tuple[str, str]]:
        """(what, why) of the command that is decided next: what of it cannot be."""
        return self._heard(self.own, self._waiting[0].event)[1] if self._waiting else []

    def _heard(self, memory: FeedMemory, event: AnyEvent) -> tuple[list[AnyEvent], list[tuple[str, str]]]:
        """What a command makes, and what of it is refused."""
        match event:
            case ApplyContract(data=applied) if self._terms_of is not None:
                try:
                    return new_terms(memory, self._terms_of(event), memory.clock), []
                except OperatorError as error:
                    return [], [(f"contract {applied.contract_hash[:12]}", str(error))]
            case RecordFeed():
                records, refused = _given(memory, event)
                return new_records(memory, records, numbered=True), refused
            case _:
                return [], []

    # --- the outside -------------------------------------------------------------------------------

    def configure(self, terms: Terms, at: int) -> Draft | None:
        """The draft that puts new terms into the log, or None when it holds them already. Raises OperatorError for
        terms whose scores could not stand beside those that are recorded.
        """
        return self.hear(Wanted(terms, at))

    def replayed(
        self, at: int, subscriptions: Sequence[Subscription], records: Sequence[FeedRecord]
    ) -> Draft | None:
        """The draft of one instant of history. What it leaves out will not come later: such a hole is closed as it is
        found.
        """
        found, _ = self.own.due(at, subscriptions, records, 0, GONE, connected=True)
        closings = [(one, from_ms, until_ms, False, GONE) for one, from_ms, until_ms, _ in found]
        return self.offer(records, at, rehearsal=True, gaps=found, closings=closings)

    def offer(
        self,
        records: Sequence[FeedRecord],
        tick_at: int | None,
        *,
        rehearsal: bool,
        gaps: Sequence[GapSaid] = (),
        closings: Sequence[GapClosing] = (),
        states: Sequence[tuple[str, str, str]] = (),
    ) -> Draft | None:
        """The draft of one append, see `Offered`; None when it tells nothing new."""
        return self.hear(Offered(records, tick_at, rehearsal, gaps, closings, states))


def _told(memory: FeedMemory, offered: Offered) -> list[AnyEvent]:
    """New records in order, gaps, closings, then the tick. A tick that does not go forward is left out, and so is the
    part of a gap that was said before, and a state that says nothing new. `at` of gaps and states is never before the
    clock.
    """
    tick_at = offered.tick_at
    now = max(memory.clock, -1 if tick_at is None else tick_at, 0)
    events: list[AnyEvent] = []
    for source, name, why in offered.states:
        if memory.states.get(source) == (name, why):
            continue
        data = FeedStateChangedData(source=source, state=name, reason=as_reason(why) if why else "")
        the_id = ids.content_id("feed-state", source, name, why, str(now))
        events.append(FeedStateChanged(id=the_id, at=now, data=data))
    events += new_records(memory, offered.records)
    events += new_gaps(memory, offered.gaps)
    events += new_closings(memory, offered.closings, now)
    if tick_at is not None and tick_at > memory.clock:
        lived = ClockTickedData(rehearsal=offered.rehearsal)
        events.append(ClockTicked(id=ids.tick_id(tick_at), at=tick_at, data=lived))
    return events


def _given(memory: FeedMemory, command: RecordFeed) -> tuple[list[FeedRecord], list[tuple[str, str]]]:
    """The records that a command gives, and what of them cannot be. They are of the past: each is `backfilled`."""
    data = command.data
    records: list[FeedRecord] = []
    refused: list[tuple[str, str]] = []
    of = Subscription(data.source, data.subject, data.kind, data.granularity)
    for given in data.records:
        record = of.record(given.ts_event, given.at, dict(given.values), given.revision)
        fault = given_fault(data, given, max(memory.clock, command.at)) or memory.refusal(record)
        if fault is not None:
            refused.append((f"{data.source}/{data.subject} {given.ts_event}", fault))
        else:
            records.append(msgspec.structs.replace(record, backfilled=True))
    return records, refused
