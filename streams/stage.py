"""The shape that every stage shares: absorb, decide, remember. No I/O, no clock.

- `absorb(decision)` folds one counted decision of a source into the stage's state.
- `decide()` gives the next decision that the state allows, or None. It is pure: asked twice, it says the same.
- `remember(...)` folds what the stage itself has decided: right after deciding, and on resume from its own topic.

A decision is made in one driving order: that of the positions (offset, event index) of the driving
source. What is at or before `upto` is folded on resume, never decided again. That makes decision
n the same whatever the interleaving of the sources and whatever the crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from coordinator.streams.counting import Decision
from coordinator.streams.envelope import Need, Position
from coordinator.streams.events import AnyEvent

NOTHING_DECIDED: Position = (-1, -1)
EMPTY_DECISION_EVERY = 1000
"""A stage that decides nothing for this many driving records writes an empty decision, so that `upto` moves."""


class Draft(msgspec.Struct, frozen=True):
    """A decision before it has a number: its events, what it decides up to, what the state still needs."""

    events: Sequence[AnyEvent]
    upto: Mapping[str, Position]
    need: Mapping[str, Need]


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
        """Fold an own decision: its events, then its positions."""
        if isinstance(draft, Draft) or _holds(draft, self.memory):
            for event in draft.events:
                if type(event).__name__ in self.memory:
                    self.evolve(event)
        self.upto.update(draft.upto)
        self.need.update(draft.need)

    def decided(self, source: str, position: Position) -> bool:
        """Is this driving position already decided?"""
        return position <= self.upto[source]

    @abstractmethod
    def absorb(self, decision: Decision) -> None:
        """Fold one counted decision of a source (`decision.topic`)."""

    @abstractmethod
    def decide(self) -> Draft | None:
        """The next decision that is due, or None."""

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
