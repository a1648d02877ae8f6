"""What a model carries from round to round: the state that its round began with, and the one that it left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coordinator.streams.audit.explain.steps import Placed, Step, fact
from coordinator.streams.events import AnyEvent, StateCarried
from coordinator.streams.scores.carried import Carried

Before = Mapping[str, Carried]
"""Holder (`StateCarriedData.holder`) -> what the rounds before left of it."""


class CarriedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier rounds left for a round that is scored as a whole, and what it left itself.

    `before` has what held when the round was scored, once for each truth that scored it; `fault` says why it is
    missing. `left_by` is the event that left the model's own state before it.
    """

    before: Sequence[Before] = ()
    fault: str = ""
    left_by: Placed[StateCarried] | None = None
    left: Sequence[Placed[StateCarried]] = ()


NOTHING_CARRIED = CarriedFacts()


def changed_by(events: Iterable[AnyEvent]) -> tuple[dict[str, bytes], list[bytes]]:
    """(model -> the state that these events left of it, [the state of all] where they changed it), as JSON."""
    states: dict[str, bytes] = {}
    shared: list[bytes] = []
    for event in events:
        if isinstance(event, StateCarried):
            states |= {model_id: bytes(state) for model_id, state in event.data.states.items()}
            shared = [bytes(state) for state in event.data.shared] or shared
    return states, shared


def carried_step(facts: CarriedFacts, model_id: str, again: Iterable[AnyEvent] | None) -> Step | None:
    """The state of the model and of all before the round, and what the round changed; None if nothing is carried.

    `again` are the events of the round, computed again.
    """
    began = [carried for carried in (facts.before[0] if facts.before else {}).values() if _holds(carried)]
    if not began and not facts.left:
        return None
    states, shared = changed_by(placed.event for placed in facts.left)
    agrees, note = None, facts.fault
    if again is not None and not facts.fault:
        computed = changed_by(again)
        agrees = computed == (states, shared)
        note = (
            ""
            if agrees
            else f"computed again: {_text(computed[0].get(model_id))}, of all {computed[1]}"[:500]
        )
    source = facts.left_by.source if facts.left_by is not None else None
    inputs = [
        fact("before", _text(bytes(carried.states[model_id])), source=source)
        for carried in began
        if model_id in carried.states
    ]
    inputs += [
        fact("before, of all models", _text(bytes(carried.shared)))
        for carried in began
        if bytes(carried.shared) != b"null"
    ]
    result = [fact("after", _text(states[model_id]))] if model_id in states else []
    result += [fact("after, of all models", _text(of_all)) for of_all in shared]
    return Step(
        name="state",
        rule="score_round gets what earlier rounds left, and leaves what it changes to later ones; a corrected truth "
        "leaves it as it was",
        sources=[placed.source for placed in facts.left],
        inputs=inputs,
        result=result or [fact("after", "unchanged")],
        agrees=agrees,
        note=note,
    )


def _holds(carried: Carried) -> bool:
    return bool(carried.states) or bytes(carried.shared) != b"null"


def _text(state: bytes | None) -> str:
    return "unchanged" if state is None else state.decode()
