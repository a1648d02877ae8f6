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
    PredictionAbsent,
    PredictionFailed,
    PredictionRecorded,
    RoundScored,
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


def transitions(event: AnyEvent) -> Iterator[Transition]:
    """The moves that an event holds, in its order; none for most kinds."""
    match event:
        case PredictionRecorded(data=data):
            yield _move(data.input_id, data.scope_key, data.model_id, NONE, "PredictionRecorded", event.at)
        case PredictionAbsent(data=data) | PredictionFailed(data=data):
            kind = type(event).__name__
            where = data.input_id, data.scope_key, data.model_id
            yield _move(*where, NONE, kind, event.at, data.reason, data.fault)
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
    after = advance(PREDICTION, before, what)
    the_id = f"{prediction_id}:{what if before == 'PENDING' else after.lower()}"
    return Transition(
        id=the_id,
        prediction_id=prediction_id,
        before=before,
        after=after,
        at=at,
        reason=reason,
        fault=fault,
    )
