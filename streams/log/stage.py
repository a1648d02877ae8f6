"""What every stage is: two pure functions over a state that is a value. No I/O, no clock.

- `decide(state, placed)` returns what one event makes: a draft, or None if it makes nothing. It changes nothing: called
  twice, or with a copy of the state, it returns the same.
- `fold(state, placed)` takes one event into the state: an event of the stage itself when it is made or read again, an
  event of a source when it is decided. Nothing else changes the state or removes anything from it.

The state is plain data: it can be copied, compared, and written as JSON. It holds dicts and lists, whose order is part
of the value, and no sets, which have no order. Its part `own` follows from the stage's own events alone; the rest
follows from the sources since `need`.

Events of a driving source wait in the order of arrival, and are folded when they are decided. Events of a source that
is only read are folded as they arrive. Such a source may be ahead of what is decided, so no decision may depend on how
far it is.

Decisions follow the order of the positions (offset, event index) in the driving source. After a restart, everything at
or before `upto` is folded and not decided again. So decision n is the same, however the sources interleave and whenever
the process crashes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position

NOTHING_DECIDED: Position = (-1, -1)
EMPTY_DECISION_EVERY = 1000
"""A stage that makes no decision for this many driving records writes an empty one, so that `upto` moves."""


class Draft(msgspec.Struct, frozen=True):
    """A decision without a number yet: its events, up to where it decides, and what the state still needs."""

    events: Sequence[AnyEvent]
    upto: Mapping[str, Position]
    need: Mapping[str, Need]


class PlacedEvent(msgspec.Struct, frozen=True):
    """One event with its place: its topic, its position there, and where a reader must begin to get it or what follows.

    Decisions are read whole. So `before` is the start of the event's decision, and `after` is its end for the last
    event and its start for all others. The stage's own events and calls from outside (topic "") have no place.
    """

    topic: str
    event: Any
    position: Position = NOTHING_DECIDED
    before: Need = Need()
    after: Need = Need()


class State(msgspec.Struct, kw_only=True):
    """What the state of every stage holds: up to where each driver is decided, and from where each source is needed."""

    upto: dict[str, Position] = {}
    need: dict[str, Need] = {}
    own: Any = None
    """What follows from the stage's own events: a struct that each stage defines."""


S = TypeVar("S", bound=State)


class Stage(ABC, Generic[S]):
    """A pure stage. A subclass names its topic, its drivers and what it only reads, and defines the two functions.

    The object holds the state, the events that wait to be decided, and what never changes (contracts, settings).
    """

    topic: ClassVar[str]
    drivers: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]]
    """The kinds of own events that are folded. On resume, decisions without any of them are not decoded."""
    form: ClassVar[int] = 1
    """Raise it when `fold` makes another state from the same own events: older recorded states are then not read."""

    def __init__(self, state: S) -> None:
        state.upto = dict.fromkeys(self.drivers, NOTHING_DECIDED)
        state.need = {source: Need() for source in self.sources}
        self.state = state
        self._waiting: deque[PlacedEvent] = deque()

    # --- what a stage brings -----------------------------------------------------------------------

    @abstractmethod
    def decide(self, state: S, placed: PlacedEvent) -> Draft | None:
        """The draft that the event makes, or None. Pure."""

    @abstractmethod
    def fold(self, state: S, placed: PlacedEvent) -> None:
        """Take the event into the state. It may change only the state, and depend only on its arguments."""

    def blocked(self, state: S, placed: PlacedEvent) -> bool:  # noqa: ARG002 - most stages wait for nothing
        """Whether this driving event must wait for more of a source that does not drive."""
        return False

    def needed(self, state: S, placed: PlacedEvent) -> dict[str, Need]:  # noqa: ARG002 - a stage that keeps nothing
        """From where the state needs each source once this event, which makes nothing, is decided."""
        return {placed.topic: placed.after}

    def unfold(self, decision: Decision) -> Iterator[PlacedEvent]:
        """The events of a source's decision, each as it is decided and folded."""
        topic, offset, before, events = decision.topic, decision.offset, decision.before, decision.events
        last = len(events) - 1
        for index, event in enumerate(events):
            yield PlacedEvent(
                topic, event, (offset, index), before, decision.after() if index == last else before
            )

    def folded_kinds(self) -> tuple[str, ...]:
        """The kinds of own events that the state now asks for: `memory`, or more where only some terms need them."""
        return self.memory

    # --- what all stages do ------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """Every topic that the stage folds, apart from its own."""
        return (*self.drivers, *self.reads)

    @property
    def upto(self) -> dict[str, Position]:
        """Driver -> the position up to which it is decided."""
        return self.state.upto

    @property
    def need(self) -> dict[str, Need]:
        """Source -> where a new owner begins to read it."""
        return self.state.need

    def decided(self, source: str, position: Position) -> bool:
        """Whether this position of a driver is decided already."""
        return position <= self.state.upto[source]

    def hear(self, event: Any) -> Draft | None:
        """The draft for a call from outside, or None. A call waits for nothing; it is folded by the events it makes."""
        return self.decide(self.state, PlacedEvent("", event))

    def absorb(self, decision: Decision) -> None:
        """Take one counted decision of a source: events that are not decided yet wait, all others are folded."""
        state, drives = self.state, decision.topic in self.drivers
        for placed in self.unfold(decision):
            if drives and not self.decided(placed.topic, placed.position):
                self._waiting.append(placed)
            else:
                self.fold(state, placed)

    def next_draft(self) -> Draft | None:
        """The next draft to write, not folded yet; events before it that make nothing are. None: nothing is due."""
        state, waiting = self.state, self._waiting
        while waiting and not self.blocked(state, waiting[0]):
            placed = waiting[0]
            draft = self.decide(state, placed)
            if draft is not None:
                return draft
            if placed.position[0] - state.upto[placed.topic][0] >= EMPTY_DECISION_EVERY:
                return Draft([], {placed.topic: placed.position}, self.needed(state, placed))
            # Skipped without a write: `upto` stays, so a new owner skips the same events again.
            self.fold(state, waiting.popleft())
        return None

    def remember(self, decision: Draft | Decision) -> None:
        """Fold a decision of the stage itself, when it is made or on resume: positions, events, and what it decided."""
        state, waiting = self.state, self._waiting
        state.upto.update(decision.upto)
        state.need.update(decision.need)
        kinds = self.folded_kinds()
        if isinstance(decision, Draft) or decision.may_hold(*kinds):
            for event in decision.events:
                if type(event).__name__ in kinds:
                    self.fold(state, PlacedEvent(self.topic, event))
        while waiting and self.decided(waiting[0].topic, waiting[0].position):
            self.fold(state, waiting.popleft())

    def step(self) -> Draft | None:
        """The next draft to write, already folded. None: nothing is due."""
        if not self._waiting:
            return None
        draft = self.next_draft()
        if draft is not None:
            self.remember(draft)
        return draft

    def waits(self) -> bool:
        """After `step` returned None: whether the oldest driving event waits for a source that does not drive.

        If so, the driver need not be read further for now: its next events would only be held in memory.
        """
        return bool(self._waiting)


AnyStage = Stage[Any]
