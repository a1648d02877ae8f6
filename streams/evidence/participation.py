"""All rounds of a period and all that one model said in them, as a bundle has them.

Reads the decisions of a bundle that holds (`bundle_judging.py` gives them as it reads the log): no number is missing
there, and every append is the one that the signed note commits to. So what is not told here did not happen: nothing of
the model was left out, and nothing slipped in. Pure.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.events import (
    AnswerEntry,
    CheckpointOpened,
    CheckpointWithheld,
    CheckpointWithheldData,
    RoundOpened,
    RoundRescored,
    RoundRescoredData,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScopeAnsweredData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import question_of


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
    other_answers: dict[str, str] = {}
    """For a posted question: round -> answer, for the model's answers that do not count."""
    corrected: bool = False
    """Whether these are the scores by a corrected truth, which come after those that they replace."""


class Participation:
    """What one model did, out of decisions that are given one by one: `predictions` before `scores`."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._places: dict[str, int | None] = {}
        """Input -> the model's place on its round's roster."""
        self._answers: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
        """(input that represents the round, scope) -> round -> (the model's answer, why there is none)."""
        self._parts: list[Part] = []
        self._periods: dict[str, tuple[int, int]] = {}
        """Checkpoint -> (start, end)."""

    def take(self, decision: Decision) -> None:
        """Take in a decision of any topic."""
        if decision.topic not in ("predictions", "scores", "checkpoints"):
            return
        for event in decision.events:
            match event:
                case RoundOpened(data=opened):
                    models = [entry.model_id for entry in opened.roster]
                    place = models.index(self._model_id) if self._model_id in models else None
                    self._places[opened.input_id] = place
                case ScopeAnswered(data=data):
                    self._take_answer(data)
                case RoundScored(data=data) | RoundRescored(data=data):
                    self._parts.append(_part(data, self._model_id, self._answers))
                case (
                    CheckpointOpened(data=data)
                    | CheckpointWithheld(data=CheckpointWithheldData(checkpoint=data))
                ):
                    self._periods[data.checkpoint_id] = (data.period_start, data.period_end)
                case _:
                    pass

    def parts(self, checkpoint_id: str) -> list[Part]:
        """Every scope of every round that resolves in the checkpoint's period, in the order of the log.

        Raises KeyError if no decision built this checkpoint.
        """
        start, end = self._periods[checkpoint_id]
        return [part for part in self._parts if start <= part.resolvable_at < end]

    def _take_answer(self, data: ScopeAnsweredData) -> None:
        place = self._places.get(data.input_id)
        if place is None or place not in data.models:
            return
        column = data.models.index(place)
        reason = next(
            (data.reasons[answer.reason] for answer in data.unanswered if answer.place == column), ""
        )
        answers = self._answers.setdefault((question_of(data.input_id), data.scope_key), {})
        blob = dict(data.blobs).get(column)
        answer = AnswerEntry("", "", "PENDING", data.outputs[column], blob=blob)
        answers[data.input_id] = answer.text, reason


def _part(
    data: RoundScoredData, model_id: str, answers: dict[tuple[str, str], dict[str, tuple[str, str]]]
) -> Part:
    part = Part(
        input_id=data.input_id,
        scope_key=data.scope_key,
        point=data.point,
        resolvable_at=data.resolvable_at,
        asked=False,
        corrected=isinstance(data, RoundRescoredData),
    )
    entry = next((entry for entry in data.entries() if entry.model_id == model_id), None)
    if entry is None:
        return part
    # For a posted question the answer that counted, or the latest of several.
    suffix = data.rounds[data.models.index(model_id)] if data.rounds else ""
    own = answers.get((data.input_id, data.scope_key), {})
    answer, why = own.get(data.input_id + suffix, ("null", ""))
    return msgspec.structs.replace(
        part,
        asked=True,
        answer=answer,
        status=entry.status,
        fault=entry.fault or "",
        reason=entry.reason or why,
        units=entry.units,
        charge_units=entry.charge_units,
        other_answers={name: other for name, (other, _) in own.items() if name != data.input_id + suffix},
    )
