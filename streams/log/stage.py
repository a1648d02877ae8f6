"""The shape that every stage shares: absorb, decide, remember. No I/O, no clock.

- `absorb(decision)` folds one counted decision of a source: what is decided already at once, the rest into a queue.
- `decide()` gives the next draft that the state allows, or None. It changes nothing: asked twice, it says the same.
- `remember(...)` folds what the stage itself has decided: right after deciding, and on resume from its own topic.
- `step()` is the one loop of all shells: it decides, folds, and gives the next draft that is to be written.

A decision is made in one driving order: that of the positions (offset, event index) of the driving
source. What is at or before `upto` is folded on resume, never decided again. That makes decision
n the same whatever the interleaving of the sources and whatever the crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position

NOTHING_DECIDED: Position = (-1, -1)
EMPTY_DECISION_EVERY = 1000
"""A stage that decides nothing for this many driving records writes an empty decision, so that `upto` moves."""


class Draft(msgspec.Struct, frozen=True):
    """A decision before it has a number: its events, what it decides up to, what the state still needs.

    A `silent` one is folded and not written: what it passes over makes no event. Its `upto` is only where the queue
    stands; a new owner passes over the same again.
    """

    events: Sequence[AnyEvent]
    upto: Mapping[str, Position]
    need: Mapping[str, Need]
    silent: bool = False


def passing(source: str, position: Position) -> Draft:
    """The silent draft: up to here nothing is made."""
    return Draft((), {source: position}, {}, silent=True)


class Stage(ABC):
    """A pure stage. Subclasses name their topic, what drives them and what they merely read."""

    topic: ClassVar[str]
    drivers: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]]
    """The kinds of own events that are state: on resume, decisions without any of them are not even decoded."""

    def __init__(self) -> None:
        self.upto: dict[str, Position] = dict.fromkeys(self.drivers, NOTHING_DECIDED)
        self.need: dict[str, Need] = {source: Need() for source in (*self.drivers, *self.reads)}

    @property
    def sources(self) -> tuple[str, ...]:
        """Every topic the stage folds."""
        return (*self.drivers, *self.reads)

    def remember(self, draft: Draft | Decision) -> None:
        """Fold an own decision: its events, its positions, then what of the queue is decided by it."""
        if isinstance(draft, Draft) or _holds(draft, self.memory):
            for event in draft.events:
                if type(event).__name__ in self.memory:
                    self.evolve(event)
        if isinstance(draft, Decision) or not draft.silent:
            self.upto.update(draft.upto)
            self.need.update(draft.need)
        if isinstance(draft, Draft):
            self.fold_decided(draft)

    def next_draft(self) -> Draft | None:
        """The next draft that is to be written, not folded yet; what is silent before it is. None: nothing is due."""
        while (draft := self.decide()) is not None and draft.silent:
            self.remember(draft)
        return draft

    def step(self) -> Draft | None:
        """The next draft that is to be written, folded. None: nothing is due."""
        draft = self.next_draft()
        if draft is not None:
            self.remember(draft)
        return draft

    def decided(self, source: str, position: Position) -> bool:
        """Is this driving position already decided?"""
        return position <= self.upto[source]

    @abstractmethod
    def absorb(self, decision: Decision) -> None:
        """Fold one counted decision of a source (`decision.topic`)."""

    @abstractmethod
    def decide(self) -> Draft | None:
        """The next decision that is due, or None. Changes nothing."""

    def fold_decided(self, draft: Draft) -> None:  # noqa: B027 - stages without a queue leave it empty
        """Take out of the queue, and fold, what this draft decided. Own events and positions are folded already."""

    def waits(self) -> bool:
        """After `decide` gave None: does the oldest driving event wait for a source that does not drive?

        Then the driver need not be read further for now: what comes behind would only be held.
        """
        return False

    def evolve(self, event: AnyEvent) -> None:  # noqa: B027 - stages without own memory leave it empty
        """Fold one own event."""


def _holds(decision: Decision, kinds: tuple[str, ...]) -> bool:
    """Could one of these kinds be in the decision? Looks at the bytes: decoding costs twenty times more."""
    return any(f'"{kind}"'.encode() in bytes(body) for body in decision.bodies for kind in kinds)
