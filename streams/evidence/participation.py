"""All rounds of a period and all that one model said in them, as a bundle has them.

Reads the decisions of `predictions` and `scores` out of a bundle that holds (`judging.py`): no number is missing there,
and every append is the one that the signed note commits to. So what is not told here did not happen: nothing of the
model was left out, and nothing slipped in. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from coordinator.streams.events import RoundOpened, RoundScored, ScopeAnswered
from coordinator.streams.log.counting import Decision


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One scope of one round of the period. Times in ms; units by score field; `answer` is JSON, null for none."""

    input_id: str
    scope_key: str
    point: int
    resolvable_at: int
    asked: bool
    """Whether the model was on the round's roster; without that it has no answer and no ending."""
    answer: str = "null"
    status: str = ""
    fault: str = ""
    reason: str = ""
    units: dict[str, int] = {}
    charge_units: int | None = None


def parts_of(
    predictions: Iterable[Decision], scores: Iterable[Decision], model_id: str, start: int, end: int
) -> list[Part]:
    """Every scope of every round that resolves in [start, end), in the order of the log."""
    rosters: dict[str, int | None] = {}
    """Input -> the model's place on its round's roster."""
    answers: dict[tuple[str, str], tuple[str, str]] = {}
    """(input, scope) -> (the model's answer, why there is none)."""
    for decision in predictions:
        for event in decision.events:
            match event:
                case RoundOpened(data=opened):
                    models = [entry.model_id for entry in opened.roster]
                    rosters[opened.input_id] = models.index(model_id) if model_id in models else None
                case ScopeAnswered(data=data):
                    place = rosters.get(data.input_id)
                    if place is None or place not in data.models:
                        continue
                    column = data.models.index(place)
                    reason = next(
                        (data.reasons[one.reason] for one in data.unanswered if one.place == column), ""
                    )
                    answers[data.input_id, data.scope_key] = (bytes(data.outputs[column]).decode(), reason)
                case _:
                    pass
    return [
        _part(event, model_id, answers)
        for decision in scores
        for event in decision.events
        if isinstance(event, RoundScored) and start <= event.data.resolvable_at < end
    ]


def _part(event: RoundScored, model_id: str, answers: dict[tuple[str, str], tuple[str, str]]) -> Part:
    data = event.data
    part = Part(
        input_id=data.input_id,
        scope_key=data.scope_key,
        point=data.point,
        resolvable_at=data.resolvable_at,
        asked=False,
    )
    entry = next((one for one in data.entries() if one.model_id == model_id), None)
    if entry is None:
        return part
    answer, why = answers.get((data.input_id, data.scope_key), ("null", ""))
    return msgspec.structs.replace(
        part,
        asked=True,
        answer=answer,
        status=entry.status,
        fault=entry.fault or "",
        reason=entry.reason or why,
        units=entry.units,
        charge_units=entry.charge_units,
    )
