"""`contract check` of a contract with posted questions: it tries truths of the contract's type in place of a market."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, Field

from coordinator.streams.contract import Aggregation, Board, CrunchContract, Questions, QuestionScope
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

SETTINGS = Settings(
    feed_source="questions", feed_kind="question", feed_granularity="1s", feed_subjects=("questions",)
)


class Probability(BaseModel):
    probability: float = Field(ge=0, le=1)


class Outcome(BaseModel):
    outcome: float


def brier(prediction: Any, truth: Any) -> dict[str, float]:
    return {"value": -((prediction.probability - truth.outcome) ** 2)}


def contract(**changes: Any) -> CrunchContract:
    fields = {
        "questions": Questions(),
        "output_type": Probability,
        "ground_truth_type": Outcome,
        "score_prediction": brier,
    }
    return CrunchContract(**(fields | changes))


def findings(wanted: CrunchContract) -> dict[str, tuple[State, str]]:
    return {finding.check: (finding.state, finding.says) for finding in examine(wanted, SETTINGS)}


def test_a_contract_of_questions_is_tried_on_truths_of_its_type():
    by_check = findings(contract())
    assert [check for check, (state, _) in by_check.items() if state is State.FAULT] == []
    assert by_check["ground_truth_type"] == (State.OK, "a truth is posted: outcome")
    assert by_check["score varies"][0] is State.OK
    assert by_check["schedule"][1] == "posted questions, in the scopes question"
    assert {"build_input", "resolve_ground_truth"} & by_check.keys() == set()
    check_contract(contract(), kind="question")


def by_round(answers: Any, truth: Any, context: Any) -> dict[str, Any]:
    assert context.question.round_id
    assert (context.subject, context.scope_key) == ("questions", "question")
    return {"value": -((np.asarray(answers.column("probability")) - truth.outcome) ** 2)}


def test_a_round_of_a_question_is_tried_with_its_question():
    by_check = findings(contract(score_prediction=CrunchContract().score_prediction, score_round=by_round))
    assert [check for check, (state, _) in by_check.items() if state is State.FAULT] == []


def test_histories_are_scored_as_they_will_be():
    def last_of_all(prediction: Any, truth: Any) -> dict[str, float]:
        assert prediction["opens_at"] < prediction["closes_at"]
        return {"value": -((prediction["answers"][-1]["output"]["probability"] - truth.outcome) ** 2)}

    by_check = findings(contract(questions=Questions(counts="history"), score_prediction=last_of_all))
    assert [check for check, (state, _) in by_check.items() if state is State.FAULT] == []


def test_a_score_that_is_the_same_for_every_answer_is_found():
    by_check = findings(contract(score_prediction=lambda prediction, truth: {"value": 0.5}))
    assert by_check["score varies"][0] is State.FAULT


def test_a_truth_that_cannot_be_generated_is_requested_from_the_author():
    class Hard(BaseModel):
        place: str = Field(pattern="^zz9$")

    by_check = findings(contract(ground_truth_type=Hard))
    state, says = by_check["ground_truth_type"]
    assert state is State.FAULT
    assert says


def test_a_board_may_consist_of_question_scopes():
    scopes = (QuestionScope(scope_key="weather", tags=("Weather",)), QuestionScope(scope_key="rest"))
    boards = [Board(name="w", scope_keys=["weather"]), Board(name="both", weights={"rest": 2})]
    wanted = contract(questions=Questions(scopes=scopes), aggregation=Aggregation(boards=boards))
    terms = make_terms(wanted, "", SETTINGS, 0)
    assert terms.scopes == []
    assert [
        [(part.subject, part.scope_key, part.weight) for part in board.parts] for board in terms.boards
    ] == [
        [("questions", "weather", "1")],
        [("questions", "weather", "1"), ("questions", "rest", "2")],
    ]
    with pytest.raises(OperatorError, match="no scope belongs"):
        make_terms(
            contract(aggregation=Aggregation(boards=[Board(name="x", scope_keys=["other"])])), "", SETTINGS, 0
        )
