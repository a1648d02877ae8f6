"""The shape that every stage shares: two pure functions over a state that is a value. No I/O, no clock.

- `decide(state, told)` says what one event makes: a draft, or None where it makes nothing. It changes nothing: asked
  twice, or of a copy of the state, it says the same.
- `fold(state, told)` takes one event into the state: an own event when it is made or read again, an event of a source
  when it is decided. Nothing else changes the state, and nothing is dropped from it anywhere else.

The state is plain data: it can be copied, compared, and written down as JSON. It holds dicts and lists, whose order is
part of the value, and no sets, which have none. Its `own` part follows from the stage's
own events alone; the rest follows from the sources since `need`.

What a source that drives says waits in the order of arrival, and is folded once it is decided. What a source says that
is merely read is folded as it comes: it may be ahead of what is decided, so no decision may depend on how far.

A decision is made in one driving order: that of the positions (offset, event index) of the driving
source. What is at or before `upto` is folded on resume, never decided again. That makes decision
n the same whatever the interleaving of the sources and whatever the crash.
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
"""A stage that decides nothing for this many driving records writes an empty decision, so that `upto` moves."""


class Draft(msgspec.Struct, frozen=True):
    """A decision before it has a number: its events, what it decides up to, what the state still needs."""

    events: Sequence[AnyEvent]
    upto: Mapping[str, Position]
    need: Mapping[str, Need]


class Told(msgspec.Struct, frozen=True):
    """One event with its place: its topic, its position there, where a reader begins who needs it, or what follows it.

    Decisions are read whole: `before` is where the event's decision begins, and `after` is past it only for the last
    of its events. Own events, and what the outside says (topic ""), have no place.
    """

    topic: str
    event: Any
    position: Position = NOTHING_DECIDED
    before: Need = Need()
    after: Need = Need()


class State(msgspec.Struct, kw_only=True):
    """What every stage's state holds: how far each driver is decided, and from where on each source is needed."""

    upto: dict[str, Position] = {}
    need: dict[str, Need] = {}
    own: Any = None
    """What follows from the stage's own events; a struct of its own for each stage."""


S = TypeVar("S", bound=State)


class Stage(ABC, Generic[S]):
    """A pure stage. A subclass names its topic, what drives it and what it merely reads, and brings the two functions.

    It holds its state, what waits to be decided, and what never changes (contracts, settings).
    """

    topic: ClassVar[str]
    drivers: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]]
    """The kinds of own events that are folded: on resume, decisions without any of them are not even decoded."""
    form: ClassVar[int] = 1
    """Grows whenever `fold` makes another state of the same own events: recorded states of before are not read then."""

    def __init__(self, state: S) -> None:
        state.upto = dict.fromkeys(self.drivers, NOTHING_DECIDED)
        state.need = {source: Need() for source in self.sources}
        self.state = state
        self._waiting: deque[Told] = deque()

    # --- what a stage brings -----------------------------------------------------------------------

    @abstractmethod
    def decide(self, state: S, told: Told) -> Draft | None:
        """What the event makes, or None. Pure."""

    @abstractmethod
    def fold(self, state: S, told: Told) -> None:
        """Take the event into the state. Changes the state alone, by what is given alone."""

    def blocked(self, state: S, told: Told) -> bool:  # noqa: ARG002 - most stages wait for nothing
        """Can this driving event not be decided before another source, which does not drive, has said more?"""
        return False

    def needed(self, state: S, told: Told) -> dict[str, Need]:  # noqa: ARG002 - a stage that keeps nothing
        """What the state still needs of the sources once the event is decided, and makes nothing."""
        return {told.topic: told.after}

    def unfold(self, decision: Decision) -> Iterator[Told]:
        """The events of a source's decision, as they are decided and folded: one by one."""
        last = len(decision.events) - 1
        for index, event in enumerate(decision.events):
            after = decision.after() if index == last else decision.before
            yield Told(decision.topic, event, (decision.offset, index), decision.before, after)

    # --- what all stages do ------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """Every topic the stage folds."""
        return (*self.drivers, *self.reads)

    @property
    def upto(self) -> dict[str, Position]:
        """How far each driver is decided."""
        return self.state.upto

    @property
    def need(self) -> dict[str, Need]:
        """From where on a new owner reads each source."""
        return self.state.need

    def decided(self, source: str, position: Position) -> bool:
        """Is this driving position already decided?"""
        return position <= self.state.upto[source]

    def hear(self, event: Any) -> Draft | None:
        """The draft for something that the outside says, or None. It waits for nothing, and is folded by its events."""
        return self.decide(self.state, Told("", event))

    def absorb(self, decision: Decision) -> None:
        """Take one counted decision of a source: what is still to be decided waits, all else is folded."""
        drives = decision.topic in self.drivers
        for told in self.unfold(decision):
            if drives and not self.decided(told.topic, told.position):
                self._waiting.append(told)
            else:
                self.fold(self.state, told)

    def next_draft(self) -> Draft | None:
        """The next draft that is to be written, not folded; what makes nothing before it is. None: nothing is due."""
        while self._waiting and not self.blocked(self.state, self._waiting[0]):
            told = self._waiting[0]
            draft = self.decide(self.state, told)
            if draft is not None:
                return draft
            if told.position[0] - self.state.upto[told.topic][0] >= EMPTY_DECISION_EVERY:
                return Draft([], {told.topic: told.position}, self.needed(self.state, told))
            # Passed over and not written: `upto` stays, so a new owner passes over the same again.
            self.fold(self.state, self._waiting.popleft())
        return None

    def remember(self, made: Draft | Decision) -> None:
        """Fold an own decision, right after it is made or on resume: its positions, its events, what it decided."""
        self.state.upto.update(made.upto)
        self.state.need.update(made.need)
        if isinstance(made, Draft) or _holds(made, self.memory):
            for event in made.events:
                if type(event).__name__ in self.memory:
                    self.fold(self.state, Told(self.topic, event))
        while self._waiting and self.decided(self._waiting[0].topic, self._waiting[0].position):
            self.fold(self.state, self._waiting.popleft())

    def step(self) -> Draft | None:
        """The next draft that is to be written, folded. None: nothing is due."""
        draft = self.next_draft()
        if draft is not None:
            self.remember(draft)
        return draft

    def waits(self) -> bool:
        """After `step` gave None: does the oldest driving event wait for a source that does not drive?

        Then the driver need not be read further for now: what comes behind would only be held.
        """
        return bool(self._waiting)


AnyStage = Stage[Any]


def _holds(decision: Decision, kinds: tuple[str, ...]) -> bool:
    """Could one of these kinds be in the decision? Looks at the bytes: decoding costs twenty times more."""
    return any(f'"{kind}"'.encode() in bytes(body) for body in decision.bodies for kind in kinds)
