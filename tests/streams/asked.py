"""Short ways to write posted questions as the input and prediction stages record them: one question of one round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel
from tests.streams.build import HASH, MINUTE, PUBKEY, T0, Answer, answer_entries

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.questions import Questions
from coordinator.streams.events import (
    AnswersClosed,
    AnswersClosedData,
    InputClosed,
    InputClosedData,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    InputScope,
    QuestionAsked,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundOpened,
    RoundOpenedData,
)
from coordinator.streams.log import ids
from coordinator.streams.predictions.stage import in_events

SCOPE = "question"
Q = ids.question_input_id("r1", "q1")
CLOSES = T0 + 60 * MINUTE


class Outcome(BaseModel):
    """The truth of a question."""

    outcome: float


def brier(prediction: Any, truth: Outcome) -> dict[str, float]:
    """1 minus the squared error."""
    return {"value": 1 - (prediction.value - truth.outcome) ** 2}


def asks(counts: str = "last", **changes: Any) -> CrunchContract:
    """A contract of questions, scored by the Brier score."""
    fields: dict[str, Any] = {
        "crunch_pubkey": PUBKEY,
        "ground_truth_type": Outcome,
        "questions": Questions(counts=counts),
    }
    if "score_round" not in changes:
        fields["score_prediction"] = brier
    return CrunchContract(**(fields | changes))


def asked(
    asking: int = 1,
    at: int = T0,
    *,
    question: str = Q,
    closes_at: int = CLOSES,
    whom: str = "all",
    payload: Any = None,
) -> InputReceived:
    """The n-th asking of a question."""
    the_id = ids.asking_input_id(question, asking)
    *_, round_id, question_id = question.split("/")
    data = InputReceivedData(
        input_id=the_id,
        subject="questions",
        point=at,
        deadline_at=min(at + 10_000, closes_at),
        scopes=[InputScope(scope_key=SCOPE, horizon_seconds=0, step_seconds=0, resolvable_at=closes_at)],
        contract_hash=HASH,
        rehearsal=False,
        payload=msgspec.Raw(msgspec.json.encode(payload or {"question_id": question_id})),
        question=QuestionAsked(
            input_id=question,
            round_id=round_id,
            question_id=question_id,
            asking=asking,
            whom=whom,  # type: ignore[arg-type]
            opens_at=T0,
            closes_at=closes_at,
            tags=["Weather"],
        ),
    )
    return InputReceived(id=f"{the_id}:received", at=at, data=data)


def closed(at: int = CLOSES, *, question: str = Q, askings: int = 1, **stakes: str) -> InputClosed:
    """A question is closed for answers."""
    data = InputClosedData(input_id=question, askings=askings, stakes=stakes)
    return InputClosed(id=f"{question}:closed", at=at, data=data)


def came(
    outcome: float | None, at: int, *, question: str = Q, revision: int = 0, void: bool = False
) -> InputResolved:
    """The truth of a question; None: there is none."""
    data = InputResolvedData(
        input_id=question,
        horizon_seconds=0,
        resolvable_at=at,
        truth=None if outcome is None else {"outcome": outcome},
        reason=("void: annulled" if void else "gap: no record") if outcome is None else None,
        last=True,
        revision=revision,
        void=void,
    )
    return InputResolved(id=f"{question}:resolved/r{revision}", at=at, data=data)


def round_opened(
    suffix: str,
    models: list[str],
    at: int = T0,
    *,
    question: str = Q,
    crunchers: Mapping[str, str] | None = None,
    closes_at: int = CLOSES,
) -> RoundOpened:
    """The round of one asking is opened."""
    the_id = question + suffix
    roster = [
        RosterEntry(
            model_id=model_id, deployment_id=f"{model_id}-d", cruncher_id=(crunchers or {}).get(model_id, "")
        )
        for model_id in models
    ]
    data = RoundOpenedData(
        input_id=the_id,
        roster=roster,
        scope_keys=[SCOPE],
        clock=at,
        contract_hash=HASH,
        models_seq=1,
        closes_at=closes_at,
    )
    return RoundOpened(id=f"{the_id}:opened", at=at, data=data)


def the_round(
    suffix: str, answers_by_model: Mapping[str, Answer], at: int = T0, *, question: str = Q, **where: Any
) -> list[Any]:
    """The round of one asking, opened and answered at `at`."""
    opened = round_opened(suffix, list(answers_by_model), at, question=question, **where)
    done = RoundAnswered(
        id=f"{question}{suffix}:answered",
        at=at,
        data=RoundAnsweredData(input_id=question + suffix, clock=at),
    )
    return [opened, *in_events(opened, {SCOPE: answer_entries(answers_by_model)}, at), done]


def all_answered(*rounds: str, at: int = CLOSES, question: str = Q) -> AnswersClosed:
    """No round of the question is open, and no other follows."""
    data = AnswersClosedData(input_id=question, rounds=list(rounds) or [""], clock=at)
    return AnswersClosed(id=f"{question}:answers-closed", at=at, data=data)
