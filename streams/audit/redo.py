"""Lets one stage decide again, and compares with its topic: what is recorded must be exactly what its sources give.

Reads a stage's topic and the topics that it folds; raises ChainBrokenError at the first decision that differs, with the
values. A stage is a pure function of its sources. So this finds everything that was altered, left out, inserted,
doubled or exchanged, in the stage's topic, or in a source after the stage had decided. The stage resumes as a new owner
does, from its own decisions before the period; these are the subject of the checks of earlier checkpoints.

It is async only because the topics come from a broker; there is no I/O here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import msgspec

from coordinator.streams.audit.differences import differences, short
from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.audit.rounding import Roundings, is_rounding
from coordinator.streams.events import (
    AnyEvent,
    CheckpointOpened,
    CheckpointWithheld,
    EnsemblesScored,
    InputResolved,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.stage import AnyStage, Draft

Topics = Callable[[str, Need], AsyncIterator[Decision]]
"""(topic, where to begin) -> its counted decisions; in `commands` each event is a decision."""
Seen = Callable[[list[AnyEvent]], None]
OF_ANY_TYPE = (InputResolved, CheckpointOpened, CheckpointWithheld)
"""The events with values whose type the format does not fix: a truth, an emission."""


class Scope(msgspec.Struct, frozen=True):
    """Which decisions of a stage belong to the period.

    They begin with the first event for which `concerns` is true, and end with the first for which `completes` is. Both
    are called only with events of `kinds`.
    """

    kinds: tuple[str, ...]
    concerns: Callable[[Any], bool]
    completes: Callable[[Any], bool]


class Redo:
    """Makes a stage's topic again: of one period, or of one period after the other, oldest first.

    `stage` is a new stage. With `roundings`, figures that a contract gives may differ by one unit, and stand there; the
    stage goes on from what is recorded, so that a unit does not spread. `seen` is told the events of each recorded
    decision before it is computed again. `from_first`: begin with the first decision of the topic, whatever period is
    asked for.
    """

    def __init__(
        self,
        stage: AnyStage,
        topics: Topics,
        step: str,
        roundings: Roundings | None = None,
        seen: Seen = lambda _events: None,
        *,
        from_first: bool = False,
    ) -> None:
        self.stage = stage
        self._topics, self._step, self._roundings, self._seen = topics, step, roundings, seen
        self._from_first = from_first
        self._decisions = topics(stage.topic, Need())
        self._readers: dict[str, _Reader] = {}
        self._last: Decision | None = None

    async def until(self, scope: Scope | None) -> int:
        """Go on through the decisions of a period, or without a `scope` through all; returns how many were computed
        again.

        Raises ChainBrokenError, which names the step, or `feed` if a truth differs.
        """
        count, stage, step = 0, self.stage, self._step
        if scope and self._last is not None and _completes(scope, self._last):
            return count
        async for decision in self._decisions:
            if not self._readers:
                if scope and not self._from_first and not _concerns(scope, decision):
                    stage.remember(decision)
                    continue
                self._readers = {
                    source: _Reader(self._topics(source, stage.need[source])) for source in stage.sources
                }
            self._seen(decision.events)
            draft = await _draft_beside(stage, decision, self._readers, step)
            if _compare(stage, decision, draft, step, self._roundings):
                draft = Draft(decision.events, draft.upto, draft.need)
            stage.remember(draft)
            count += 1
            self._last = decision
            if scope and _completes(scope, decision):
                return count
        if scope is None:
            return count
        reason = f"it ends after {count} of them" if count else "it has none"
        raise ChainBrokenError(step, f"{stage.topic} lacks decisions of the period: {reason}")


def _concerns(scope: Scope, decision: Decision) -> bool:
    return any(scope.concerns(event) for event in of_kinds(decision, scope.kinds))


def _completes(scope: Scope, decision: Decision) -> bool:
    return any(scope.completes(event) for event in of_kinds(decision, scope.kinds))


def of_kinds(decision: Decision, kinds: tuple[str, ...]) -> Iterator[AnyEvent]:
    """A decision's events of these kinds. Most decisions have none, which the bytes show without decoding."""
    if decision.may_hold(*kinds):
        yield from (event for event in decision.events if type(event).__name__ in kinds)


class _Reader:
    def __init__(self, decisions: AsyncIterator[Decision]) -> None:
        self._decisions = decisions
        self.offset = -1

    async def next(self) -> Decision | None:
        decision = await anext(self._decisions, None)
        if decision is not None:
            self.offset = decision.offset
        return decision


async def _draft_beside(stage: AnyStage, decision: Decision, readers: dict[str, _Reader], step: str) -> Draft:
    """What the stage decides next, from the events that drove the recorded decision and those that it waited for."""
    for source in stage.drivers:
        until = decision.upto.get(source, (-1, 0))[0]
        while readers[source].offset < until:
            read = await readers[source].next()
            if read is None:
                broken(
                    step, f"decision {decision.seq} of {stage.topic} is made of events that {source} lacks"
                )
            stage.absorb(read)
    waiting = [readers[source] for source in stage.reads]
    while (draft := stage.next_draft()) is None:
        decisions = [read for reader in waiting if (read := await reader.next()) is not None]
        if not decisions:
            events = ", ".join(f"{type(event).__name__} {event.id}" for event in decision.events[:3])
            broken(
                step,
                f"decision {decision.seq} of {stage.topic} ({events or 'empty'}): nothing in "
                f"{' and '.join(stage.sources)} makes it",
            )
        for read in decisions:
            stage.absorb(read)
    return draft


def _compare(
    stage: AnyStage, decision: Decision, draft: Draft, step: str, roundings: Roundings | None
) -> bool:
    """Whether figures differ by one unit of rounding. Raises ChainBrokenError if anything differs by more."""
    sources, rounded = " and ".join(stage.sources), False
    for recorded, redone in zip_longest(decision.events, draft.events):
        if recorded is not None and redone is not None and _are_same(recorded, redone):
            continue
        place = f"decision {decision.seq} of {stage.topic}"
        if redone is None or (
            recorded is not None and recorded.id != redone.id and _is_in(redone, decision.events)
        ):
            broken(
                _blamed(recorded, step),
                f"{place}: {_named(recorded)} is recorded, but {sources} do not give it",
            )
        if recorded is None or recorded.id != redone.id:
            broken(
                _blamed(redone, step),
                f"{place}: {_named(redone)} was left out; {_named(recorded)} stands there",
            )
        # Raw JSON is kept as its bytes: written with other blanks it is another fact, with no field that differs.
        written = ("its JSON", encode_event(recorded), encode_event(redone))
        apart = list(differences(_plain(recorded), _plain(redone))) or [written]
        field, was, should = next(
            (
                difference
                for difference in apart
                if roundings is None or not is_rounding(type(recorded).__name__, *difference)
            ),
            ("", None, None),
        )
        if not field and roundings is not None:
            # The figures that the second check computes too (`scores.py`, `sums.py`) have their place there.
            if isinstance(recorded, EnsemblesScored):
                field, was, should = apart[0]
                roundings.near(f"{_named(recorded)}, {field}", was, should)
            rounded = True
            continue
        broken(
            _blamed(recorded, step),
            f"{_named(recorded)}: {field} is {short(was)}, {sources} give {short(should)}",
        )
    upto = {**stage.upto, **draft.upto}
    if dict(decision.upto) != upto:
        broken(
            step,
            f"decision {decision.seq} of {stage.topic} says it is made of {decision.upto}, not of {upto}",
        )
    recorded_need, needed = _places(decision.need), _places({**stage.need, **draft.need})
    if recorded_need != needed:
        broken(
            step,
            f"decision {decision.seq} of {stage.topic} says that its state needs {recorded_need}, not {needed}",
        )
    return rounded


def _places(need: Mapping[str, Need]) -> dict[str, tuple[int, int]]:
    """Source -> (offset, seq): an epoch says who wrote, and a copied log has others."""
    return {source: (place.offset, place.seq) for source, place in need.items()}


def _are_same(recorded: AnyEvent, redone: AnyEvent) -> bool:
    """Whether two events are the same JSON. In values of any type `true`, 1 and 1.0 are equal, and not the same."""
    return recorded == redone and not (
        isinstance(recorded, OF_ANY_TYPE) and any(differences(_plain(recorded), _plain(redone)))
    )


def _blamed(event: AnyEvent | None, step: str) -> str:
    """The step to name for a wrong event: a wrong truth is a fault of the feed."""
    return "feed" if isinstance(event, InputResolved) else step


def _is_in(event: AnyEvent, events: list[AnyEvent]) -> bool:
    return any(other.id == event.id for other in events)


def _named(event: AnyEvent | None) -> str:
    return "nothing" if event is None else f"{type(event).__name__} {event.id}"


def _plain(event: AnyEvent) -> Any:
    return msgspec.json.decode(encode_event(event))  # a field may hold raw JSON
