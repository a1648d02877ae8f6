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

from coordinator.streams.contract.terms import asking_as, same_terms
from coordinator.streams.events import (
    AnyEvent,
    ApplyContract,
    ClockTicked,
    ClockTickedData,
    CrunchConfigured,
    FeedStateChanged,
    FeedStateChangedData,
    RecordFeed,
    Terms,
)
from coordinator.streams.feeds.given import given_fault
from coordinator.streams.feeds.made import new_closings, new_gaps, new_records
from coordinator.streams.feeds.state import FeedMemory, GapClosing, GapSaid
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import Draft, Stage, State, Told
from coordinator.streams.ports import FeedRecord, Subscription

GONE = "history has no such record"


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

    def decide(self, state: FeedState, told: Told) -> Draft:
        """What a command makes. The draft of one about something else is empty, and says that the command was read."""
        events, _ = self._heard(state.own, told.event)
        return Draft(events, {told.topic: told.position}, self.needed(state, told))

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
                    draft = self.configure(self._terms_of(event), memory.clock)
                except OperatorError as error:
                    return [], [(f"contract {applied.contract_hash[:12]}", str(error))]
                return [] if draft is None else list(draft.events), []
            case RecordFeed():
                records, refused = _given(memory, event)
                return new_records(memory, records, numbered=True), refused
            case _:
                return [], []

    # --- the outside -------------------------------------------------------------------------------

    def configure(self, terms: Terms, at: int) -> Draft | None:
        """The draft that puts new terms into the log, or None when it holds them already.

        The first hold from the beginning. What is asked (feed, subjects) changes at once: right after the clock and
        every record, without an end of the running period; and a change that is taken back is taken back at once.
        The rest holds from the next checkpoint boundary on, in place of what was to change there. Raises OperatorError
        for terms whose scores could not stand beside those that are recorded.
        """
        if not self.own.terms:
            return Draft([self._configured(terms, 0, at)], {}, {})
        now = max(self.own.clock, self.own.newest_at()) + 1
        newest = self.own.terms.events[-1].data
        if terms.score_decimals != newest.score_decimals:
            message = (
                f"the contract's score_decimals is {terms.score_decimals}, but the scores of this crunch are "
                f"recorded with {newest.score_decimals}, and units of both cannot be added: set "
                f"score_decimals={newest.score_decimals}, or begin another crunch (CRUNCH_ID and a data directory "
                "of its own)"
            )
            raise OperatorError(message)
        held = self.own.terms.at(now)
        asked = asking_as(held, terms)
        events = [] if same_terms(asked, held) else [self._configured(asked, now, at)]
        planned = newest if newest.effective_from > now else asked
        if not same_terms(terms, planned):
            _, boundary = self.own.terms.checkpoint_period(now)
            events.append(self._configured(terms, boundary, at))
        return Draft(events, {}, {}) if events else None

    def _configured(self, terms: Terms, effective_from: int, at: int) -> CrunchConfigured:
        terms = msgspec.structs.replace(terms, effective_from=effective_from)
        content = msgspec.json.Encoder(order="deterministic").encode(terms).decode()
        the_id = ids.content_id("terms", content)
        if the_id in {
            known.id for known in self.own.terms.events
        }:  # taken back, and wanted again before time moved
            the_id = ids.content_id("terms", content, str(len(self.own.terms.events)))
        return CrunchConfigured(id=the_id, at=max(at, self.own.clock, 0), data=terms)

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
        """The draft of one append: new records in order, gaps, closings, then the tick. None when all is known.

        A tick that does not go forward is left out, and so is the part of a gap that was said before, and a state
        (source, state, reason) that says nothing new. `at` of gaps and states is never before the clock.
        """
        now = max(self.own.clock, -1 if tick_at is None else tick_at, 0)
        events: list[AnyEvent] = []
        for source, name, why in states:
            if self.own.states.get(source) == (name, why):
                continue
            data = FeedStateChangedData(source=source, state=name, reason=as_reason(why) if why else "")
            the_id = ids.content_id("feed-state", source, name, why, str(now))
            events.append(FeedStateChanged(id=the_id, at=now, data=data))
        events += new_records(self.own, records)
        events += new_gaps(self.own, gaps)
        events += new_closings(self.own, closings, now)
        if tick_at is not None and tick_at > self.own.clock:
            events.append(
                ClockTicked(id=ids.tick_id(tick_at), at=tick_at, data=ClockTickedData(rehearsal=rehearsal))
            )
        return Draft(events, {}, {}) if events else None


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
