"""Every status transition of every prediction, expanded from events that hold a whole round in columns.

`coordinator log cat --transitions`, tests, and checks of a single prediction use it; hot code reads the columns. Each
transition has an id made from content: the prediction's id and the name of the move.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coordinator.streams.events import (
    AnyEvent,
    Fault,
    RosterEntry,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScoreEntry,
)
from coordinator.streams.log import ids
from coordinator.streams.log.lifecycle import NONE, PREDICTION, advance


class Transition(msgspec.Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """One prediction's move at event time `at` (ms). `reason` and `fault` say why it has no answer or no score."""

    id: str
    prediction_id: str
    before: str
    after: str
    at: int
    reason: str = ""
    fault: Fault | None = None


Rosters = dict[str, list[RosterEntry]]
"""input_id -> the models that were asked; an answer names its model by the index in this list."""


def transitions(event: AnyEvent, rosters: Rosters) -> Iterator[Transition]:
    """The transitions in an event, in its order; none for most kinds of events.

    `rosters` is the caller's memory between the events of `predictions`: this function adds a round when it is opened
    and removes it when it is answered. Raises KeyError for an answer whose round was never opened.
    """
    match event:
        case RoundOpened(data=data):
            rosters[data.input_id] = data.roster
        case RoundAnswered(data=data):
            rosters.pop(data.input_id, None)
        case ScopeAnswered(data=data):
            for answer in data.entries(rosters[data.input_id]):
                prediction_id = ids.prediction_id(data.input_id, data.scope_key, answer.model_id)
                move = answer.status.lower()
                yield _transition(prediction_id, NONE, move, event.at, answer.reason, answer.fault)
        case RoundScored(data=data):
            entries = data.entries()
            for i, entry in enumerate(entries):
                yield from _ended(data, data.rounds[i] if data.rounds else "", entry, event.at)
            for suffix, indices in data.merged.items():
                for i in indices:
                    yield from _ended(data, suffix, entries[i], event.at)
            for suffix, indices in data.replaced.items():
                for i in indices:
                    model_id = data.models[i]
                    prediction_id = ids.prediction_id(data.input_id + suffix, data.scope_key, model_id)
                    yield _transition(prediction_id, "PENDING", "replaced", event.at)
        case _:
            pass


def _ended(data: RoundScoredData, suffix: str, entry: ScoreEntry, at: int) -> Iterator[Transition]:
    """The end of a model's answer in the round with this suffix: the input's own, or a later one of its question."""
    prediction_id = ids.prediction_id(data.input_id + suffix, data.scope_key, entry.model_id)
    if entry.status == "SCORED":
        yield _transition(prediction_id, "PENDING", "scored", at)
    elif entry.reason:
        yield _transition(prediction_id, "PENDING", "scoring-failed", at, entry.reason, entry.fault)


def _transition(
    prediction_id: str, before: str, move: str, at: int, reason: str = "", fault: Fault | None = None
) -> Transition:
    return Transition(
        id=f"{prediction_id}:{move}",
        prediction_id=prediction_id,
        before=before,
        after=advance(PREDICTION, before, move),
        at=at,
        reason=reason,
        fault=fault,
    )
