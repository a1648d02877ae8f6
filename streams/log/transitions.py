"""Every move of every prediction, out of events that hold a whole round in columns.

Reads one event; gives its transitions. `coordinator log cat --transitions`, tests and whoever checks a prediction by
itself use it; what is hot reads the columns. Each has an id made of content: the prediction's, and what became of it.
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
    ScopeAnswered,
)
from coordinator.streams.log import ids
from coordinator.streams.log.lifecycle import NONE, PREDICTION, advance


class Transition(msgspec.Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """One prediction's move, at event time `at` (ms). `reason` and `fault` say why, where it has no score or answer."""

    id: str
    prediction_id: str
    before: str
    after: str
    at: int
    reason: str = ""
    fault: Fault | None = None


Rosters = dict[str, list[RosterEntry]]
"""input_id -> who was asked: an answer names its model by the place there."""


def transitions(event: AnyEvent, rosters: Rosters) -> Iterator[Transition]:
    """The moves that an event holds, in its order; none for most kinds.

    `rosters` is the caller's memory between the events of `predictions`: it is filled here and emptied as rounds are
    answered. Raises KeyError for an answer whose round was never opened.
    """
    match event:
        case RoundOpened(data=data):
            rosters[data.input_id] = data.roster
        case RoundAnswered(data=data):
            rosters.pop(data.input_id, None)
        case ScopeAnswered(data=data):
            for answer in data.entries(rosters[data.input_id]):
                where = data.input_id, data.scope_key, answer.model_id
                yield _move(*where, NONE, answer.status.lower(), event.at, answer.reason, answer.fault)
        case RoundScored(data=data):
            for entry in data.entries():
                where = data.input_id, data.scope_key, entry.model_id
                if entry.status == "SCORED":
                    yield _move(*where, "PENDING", "scored", event.at)
                elif entry.reason:
                    yield _move(*where, "PENDING", "scoring-failed", event.at, entry.reason, entry.fault)
        case _:
            pass


def _move(
    input_id: str,
    scope_key: str,
    model_id: str,
    before: str,
    what: str,
    at: int,
    reason: str = "",
    fault: Fault | None = None,
) -> Transition:
    prediction_id = ids.prediction_id(input_id, scope_key, model_id)
    return Transition(
        id=f"{prediction_id}:{what}",
        prediction_id=prediction_id,
        before=before,
        after=advance(PREDICTION, before, what),
        at=at,
        reason=reason,
        fault=fault,
    )
