"""The stage of `feeds`: records each delivered fact once, and the time.

Driven by the outside (records and posts from sources, ticks of a clock) and by `commands` (an operator's records of the
past, contracts to apply, and posts: questions, truths, stakes). Emits `feeds`.

A record that arrives from the stream and from history is one event, because both have the same id. A corrected record
has a higher revision, which is assigned here if the source does not number revisions. A record that arrives after a
later record of its subscription is marked `backfilled`; all others are in order. A record that is so late that it may
be a repeat is refused (`record_memory.py`). Ticks never go back, and say whether their time is live or replayed.
Another feed or other subjects hold at once, all other terms from the next checkpoint boundary.

The time of an operator's post is that of its command, but not before the clock, and not far ahead of it. A source's
post has its own time, and is known by its text, so that a source may deliver it again (`posts.py`).
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
    CloseQuestions,
    FeedStateChanged,
    FeedStateChangedData,
    PostQuestions,
    PostStakes,
    RecordFeed,
    ResolveQuestions,
    Terms,
    VoidQuestions,
)
from coordinator.streams.feeds.delivered_records import given_fault
from coordinator.streams.feeds.new_facts import new_closings, new_gaps, new_records, new_terms
from coordinator.streams.feeds.posts import KIND, PostCommand, decide_post, posted_by_source
from coordinator.streams.feeds.state import FeedMemory, GapClosing, GapSaid
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State
from coordinator.streams.ports import FeedRecord, Subscription

GONE = "history has no such record"
COMMAND_AHEAD_MS_MAX = 60_000
"""How far a post's time may be ahead of the clock, which may stand while no source confirms the time."""


class Offered(msgspec.Struct, frozen=True):
    """What the outside delivered together.

    `tick_at`: the time in ms, None for no tick; `rehearsal`: whether this time is replayed; `states`: (source, state,
    reason) of each source.
    """

    records: Sequence[FeedRecord]
    tick_at: int | None
    rehearsal: bool
    gaps: Sequence[GapSaid] = ()
    closings: Sequence[GapClosing] = ()
    states: Sequence[tuple[str, str, str]] = ()


class WantedTerms(msgspec.Struct, frozen=True):
    """The terms that the node shall have from now on; `at` is the time of the event, in ms."""

    terms: Terms
    at: int


class FeedState(State):
    """The state. All of it follows from the stage's own events."""

    own: FeedMemory = msgspec.field(default_factory=FeedMemory)


class FeedStage(Stage[FeedState]):
    """The outside and `commands` -> `feeds`. `offer`, `replayed` and `configure` make drafts for the outside."""

    topic: ClassVar[str] = "feeds"
    drivers: ClassVar[tuple[str, ...]] = ("commands",)
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "FeedRecordReceived",
        "FeedGapFound",
        "FeedGapClosed",
        "FeedStateChanged",
        "ClockTicked",
        "PostReceived",
        "QuestionPosted",
        "QuestionClosed",
        "QuestionResolved",
        "QuestionVoided",
        "StakesPosted",
    )

    def __init__(self, terms_of: Callable[[ApplyContract], Terms] | None = None) -> None:
        """`terms_of` returns the terms of a contract that an operator applies, or raises OperatorError."""
        super().__init__(FeedState())
        self._terms_of = terms_of

    @property
    def own(self) -> FeedMemory:
        """The feed's state."""
        return self.state.own

    def decide(self, state: FeedState, placed: PlacedEvent) -> Draft | None:
        """The draft for what the outside delivered, or for a command.

        A command that concerns another stage makes an empty draft, which records that it was read. Raises OperatorError
        for impossible terms.
        """
        match placed.event:
            case Offered() as offered:
                events = _events_of(state.own, offered)
            case WantedTerms(terms=terms, at=at):
                events = new_terms(state.own, terms, at)
            case command:
                events, _ = self._command(state.own, command)
                return Draft(events, {placed.topic: placed.position}, self.needed(state, placed))
        return Draft(events, {}, {}) if events else None

    def fold(self, state: FeedState, placed: PlacedEvent) -> None:
        """Fold the stage's own events. Commands leave nothing in the state."""
        if placed.topic == self.topic:
            state.own.evolve(placed.event)

    # --- commands ----------------------------------------------------------------------------------

    def blocked(self, state: FeedState, placed: PlacedEvent) -> bool:
        """A post waits for the first terms, by which it is judged."""
        return isinstance(placed.event, PostCommand) and not state.own.terms

    def due(self) -> int | None:
        """The offset of the command decided next; None if none waits, or if it is held up."""
        if not self._waiting or self.blocked(self.state, self._waiting[0]):
            return None
        return self._waiting[0].position[0]

    def due_id(self) -> str:
        """The id of the command decided next; there must be one (`due`)."""
        return str(self._waiting[0].event.id)

    def refused(self) -> list[tuple[str, str]]:
        """(item, reason) for each item of the command decided next that is refused."""
        return self._command(self.own, self._waiting[0].event)[1] if self.due() is not None else []

    def _command(self, memory: FeedMemory, event: AnyEvent) -> tuple[list[AnyEvent], list[tuple[str, str]]]:
        """(the events that a command makes, the (item, reason) of what is refused)."""
        match event:
            case ApplyContract(data=applied) if self._terms_of is not None:
                try:
                    return new_terms(memory, self._terms_of(event), memory.clock), []
                except OperatorError as error:
                    return [], [(f"contract {applied.contract_hash[:12]}", str(error))]
            case RecordFeed():
                records, refused = _given(memory, event)
                return new_records(memory, records, numbered=True), refused
            case PostQuestions() | CloseQuestions() | ResolveQuestions() | VoidQuestions() | PostStakes():
                return decide_post(memory.posted, memory.terms, event.data, _time_of(memory, event))
            case _:
                return [], []

    # --- the outside -------------------------------------------------------------------------------

    def configure(self, terms: Terms, at: int) -> Draft | None:
        """The draft that puts new terms into the log; None if the log has them.

        Raises OperatorError, see `new_terms`.
        """
        return self.hear(WantedTerms(terms, at))

    def replayed(
        self, at: int, subscriptions: Sequence[Subscription], records: Sequence[FeedRecord]
    ) -> Draft | None:
        """The draft of one instant of history.

        A record that history lacks will not arrive later: such a gap is recorded and closed in the same draft.
        """
        gaps, _ = self.own.due(at, subscriptions, records, 0, GONE, connected=True)
        closings = [(of, from_ms, until_ms, False, GONE) for of, from_ms, until_ms, _ in gaps]
        return self.offer(records, at, rehearsal=True, gaps=gaps, closings=closings)

    def turn_before(self, at: int) -> int | None:
        """When a question opens or closes next, after the clock and before `at` (ms); None if none does."""
        return self.own.posted.turn_between(self.own.clock, at)

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
        """The draft for what was delivered, see `Offered`; None if there is nothing new."""
        return self.hear(Offered(records, tick_at, rehearsal, gaps, closings, states))


def _events_of(memory: FeedMemory, offered: Offered) -> list[AnyEvent]:
    """Changed states, new records, posts, gaps, closings, then the tick.

    Left out: a tick that does not advance, the part of a gap that is recorded already, a state that has not changed.
    `at` of states and closings is never before the clock.
    """
    tick_at = offered.tick_at
    now = max(memory.clock, -1 if tick_at is None else tick_at, 0)
    events: list[AnyEvent] = []
    for source, name, reason in offered.states:
        *state_before, before_id = memory.states.get(source, ("", "", ""))
        if state_before == [name, reason]:
            continue
        data = FeedStateChangedData(source=source, state=name, reason=as_reason(reason) if reason else "")
        # While the clock stands a state may come back: what it came after tells the two events apart.
        state_id = ids.content_id("feed-state", source, name, reason, str(now), before_id)
        events.append(FeedStateChanged(id=state_id, at=now, data=data))
    posts = [record for record in offered.records if record.kind == KIND]
    records = [record for record in offered.records if record.kind != KIND] if posts else offered.records
    events += new_records(memory, records)
    if posts:
        events += posted_by_source(memory.posted, memory.terms, posts, memory.clock)
    events += new_gaps(memory, offered.gaps)
    events += new_closings(memory, offered.closings, now)
    if tick_at is not None and tick_at > memory.clock:
        tick = ClockTickedData(rehearsal=offered.rehearsal)
        events.append(ClockTicked(id=ids.tick_id(tick_at), at=tick_at, data=tick))
    return events


def _time_of(memory: FeedMemory, command: PostCommand) -> int:
    """When a command is taken to have come, in ms."""
    if memory.clock < 0:
        return max(command.at, 0)
    return max(memory.clock, min(command.at, memory.clock + COMMAND_AHEAD_MS_MAX))


def _given(memory: FeedMemory, command: RecordFeed) -> tuple[list[FeedRecord], list[tuple[str, str]]]:
    """(the records of a command, the (item, reason) of those refused). They are of the past: each is `backfilled`."""
    data = command.data
    records: list[FeedRecord] = []
    refused: list[tuple[str, str]] = []
    of = Subscription(data.source, data.subject, data.kind, data.granularity)
    for record_given in data.records:
        record = of.record(
            record_given.ts_event, record_given.at, dict(record_given.values), record_given.revision
        )
        fault = given_fault(data, record_given, max(memory.clock, command.at)) or memory.refusal(record)
        if fault is not None:
            refused.append((f"{data.source}/{data.subject} {record_given.ts_event}", fault))
        else:
            records.append(msgspec.structs.replace(record, backfilled=True))
    return records, refused
