"""One stage decided again beside its own topic: what it recorded is what its sources give, nothing more, nothing less.

Reads a stage's topic and the topics that it folds; raises ChainBrokenError at the first decision that is another, with
the figure. A stage is a pure function of its sources, so this finds whatever was altered, left out, slipped in, doubled
or exchanged: in the stage's topic, or in a source after the stage had decided. The stage takes up its work as a new
owner would: from its own decisions before the period, which the checkpoints before answer for.

Async only because the topics come from a broker; there is no I/O here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import zip_longest
from typing import Any

import msgspec

from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.events import AnyEvent, InputResolved
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.stage import AnyStage, Draft

Topics = Callable[[str, Need], AsyncIterator[Decision]]
"""(topic, from where) -> its counted decisions; of `commands`, each event as a decision."""
SHOWN_CHARS = 120


class Scope(msgspec.Struct, frozen=True):
    """Which of a stage's decisions belong to the period: from the first event that `concerns`, to the first that
    `completes` it. Both are asked for events of `kinds` alone.
    """

    kinds: tuple[str, ...]
    concerns: Callable[[Any], bool]
    completes: Callable[[Any], bool]


async def redo(stage: AnyStage, topics: Topics, scope: Scope, step: str) -> int:
    """How many decisions of the period were decided again, each equal. Raises ChainBrokenError.

    `stage` is a new one; the step named is `step`, or `feed` where a truth differs.
    """
    readers: dict[str, _Reader] = {}
    count = 0
    async for decision in topics(stage.topic, Need()):
        if not readers:
            if not any(scope.concerns(event) for event in _of_kinds(decision, scope.kinds)):
                stage.remember(decision)
                continue
            readers = {one: _Reader(topics(one, stage.need[one])) for one in stage.sources}
        draft = await _draft_beside(stage, decision, readers, step)
        _compare(stage, decision, draft, step)
        stage.remember(draft)
        count += 1
        if any(scope.completes(event) for event in _of_kinds(decision, scope.kinds)):
            return count
    last = f"it ends after {count} of them" if count else "none concerns it"
    raise ChainBrokenError(step, f"{stage.topic} lacks decisions of the period: {last}")


def _of_kinds(decision: Decision, kinds: tuple[str, ...]) -> Iterator[AnyEvent]:
    """Its events of these kinds; most decisions hold none, and need not be decoded to see that."""
    if any(f'"{kind}"'.encode() in bytes(body) for body in decision.bodies for kind in kinds):
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
    """What the stage decides next, from what drove the recorded decision and what it may have waited for."""
    for source in stage.drivers:
        until = decision.upto.get(source, (-1, 0))[0]
        while readers[source].offset < until:
            found = await readers[source].next()
            if found is None:
                broken(
                    step, f"decision {decision.seq} of {stage.topic} is of what {source} does not hold (yet)"
                )
            stage.absorb(found)
    waiting = [readers[source] for source in stage.reads]
    while (draft := stage.next_draft()) is None:
        read = [found for reader in waiting if (found := await reader.next()) is not None]
        if not read:
            what = ", ".join(f"{type(event).__name__} {event.id}" for event in decision.events[:3])
            broken(
                step,
                f"decision {decision.seq} of {stage.topic} ({what or 'empty'}): nothing in "
                f"{' and '.join(stage.sources)} makes it",
            )
        for found in read:
            stage.absorb(found)
    return draft


def _compare(stage: AnyStage, decision: Decision, draft: Draft, step: str) -> None:
    sources = " and ".join(stage.sources)
    for said, again in zip_longest(decision.events, draft.events):
        if said == again:
            continue
        place = f"decision {decision.seq} of {stage.topic}"
        if again is None or (said is not None and said.id != again.id and _is_in(again, decision.events)):
            broken(_blamed(said, step), f"{place}: {_named(said)} is recorded, but {sources} do not give it")
        if said is None or said.id != again.id:
            broken(
                _blamed(again, step), f"{place}: {_named(again)} was left out; {_named(said)} stands there"
            )
        field, was, should = next(_differences(_plain(said), _plain(again)))
        broken(
            _blamed(said, step), f"{_named(said)}: {field} is {_short(was)}, {sources} give {_short(should)}"
        )
    upto = {**stage.upto, **draft.upto}
    if dict(decision.upto) != upto:
        broken(
            step,
            f"decision {decision.seq} of {stage.topic} says it is made of {decision.upto}, not of {upto}",
        )


def _blamed(event: AnyEvent | None, step: str) -> str:
    """A truth is what the feed said."""
    return "feed" if isinstance(event, InputResolved) else step


def _is_in(event: AnyEvent, events: list[AnyEvent]) -> bool:
    return any(one.id == event.id for one in events)


def _named(event: AnyEvent | None) -> str:
    return "nothing" if event is None else f"{type(event).__name__} {event.id}"


def _plain(event: AnyEvent) -> Any:
    return msgspec.json.decode(encode_event(event))  # a field may hold raw JSON


def _differences(said: Any, again: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(said, dict) and isinstance(again, dict):
        for name in dict.fromkeys((*said, *again)):
            yield from _differences(said.get(name), again.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(said, list) and isinstance(again, list) and len(said) == len(again):
        for index, pair in enumerate(zip(said, again, strict=True)):
            yield from _differences(*pair, f"{path}[{index}]")
    elif said != again or type(said) is not type(again):
        yield path.removeprefix("data."), said, again


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}.."
