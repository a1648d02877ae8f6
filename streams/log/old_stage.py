"""The shape that stages had before: those that are not moved yet to `stage.py`. It goes with the last of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.stage import Draft, Stage, State, Told, _holds


class OldDraft(Draft, frozen=True):
    """A draft that may be silent: folded and not written."""

    silent: bool = False


def passing(source: str, position: Position) -> OldDraft:
    """The silent draft: up to here nothing is made."""
    return OldDraft((), {source: position}, {}, silent=True)


class OldStage(Stage[Any]):
    """absorb, decide, remember, over mutable fields."""

    state: Any
    _waiting: Any

    def __init__(self) -> None:
        self._places = State()
        super().__init__(self._places)

    @property
    def upto(self) -> dict[str, Position]:
        """How far each driver is decided."""
        return self._places.upto

    @property
    def need(self) -> dict[str, Need]:
        """From where on a new owner reads each source."""
        return self._places.need

    def decided(self, source: str, position: Position) -> bool:
        """Is this driving position already decided?"""
        return position <= self.upto[source]

    def fold(self, state: State, told: Told) -> None:
        """Not used."""

    def remember(self, made: Draft | Decision) -> None:
        """Fold an own decision."""
        silent = isinstance(made, OldDraft) and made.silent
        if isinstance(made, Draft) or _holds(made, self.memory):
            for event in made.events:
                if type(event).__name__ in self.memory:
                    self.evolve(event)
        if not silent:
            self.upto.update(made.upto)
            self.need.update(made.need)
        if isinstance(made, Draft):
            self.fold_decided(made)

    def next_draft(self) -> Draft | None:
        """The next draft that is to be written."""
        while (draft := self.decide()) is not None and isinstance(draft, OldDraft) and draft.silent:
            self.remember(draft)
        return draft

    def waits(self) -> bool:
        """None of them does."""
        return False

    @abstractmethod
    def absorb(self, decision: Decision) -> None:
        """Fold one counted decision of a source (`decision.topic`)."""

    @abstractmethod
    def decide(self, *_unused: Any) -> Draft | None:
        """The next decision that is due, or None. Changes nothing."""

    def fold_decided(self, draft: Draft) -> None:
        """Take out of the queue, and fold, what this draft decided."""

    def evolve(self, event: AnyEvent) -> None:
        """Fold one own event."""


__all__ = ["Draft", "OldDraft", "OldStage", "passing"]
