"""`NoScore`: an answer that cannot be scored yet, by nobody's fault. It costs nothing and is no absence."""

from __future__ import annotations

from typing import Any

import pytest
from tests.given import given
from tests.streams.build import (
    HOUR,
    MINUTE,
    T0,
    UNIT,
    answers,
    configured,
    opened,
    received,
    resolved,
    scored_until,
    shelf,
)

from coordinator.streams.contract import CrunchContract, NoScore, RoundScores
from coordinator.streams.events import CrunchConfigured, RoundScored, ScoreEntry, SnapshotTaken
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

POLICIES = ["ignore", "zero", "worst", "scored"]
SAID = {"a": 0.5, "flat": 0.0, "gone": "ABSENT", "idle": "ABSENT"}


def each(round_answers: Any, truth: Any, context: Any) -> list[Any]:
    return [
        NoScore("has not traded yet")
        if answer.model_id == "idle" or (answer.output is not None and answer.output.value == 0)
        else -1.0
        if answer.output is None
        else answer.output.value
        for answer in round_answers
    ]


def in_columns(round_answers: Any, truth: Any, context: Any) -> RoundScores:
    rows = each(round_answers, truth, context)
    value = [7.0 if isinstance(row, NoScore) else row for row in rows]
    waiting = [name for name, row in zip(round_answers.models, rows, strict=True) if isinstance(row, NoScore)]
    return RoundScores({"value": value}, no_score=dict.fromkeys(waiting, "has not traded yet"))


def alone(prediction: Any, truth: Any) -> Any:
    return NoScore("has not traded yet") if prediction.value == 0 else {"value": prediction.value}


def scored_with(contract: CrunchContract, answers_by_model: dict[str, Any]) -> RoundScored:
    scene = given(ScoreStage(shelf(contract)))
    scene.when("inputs", configured(absence_policy=contract.absence_policy)).then(CrunchConfigured)
    scene.when("predictions", opened(T0, list(answers_by_model)), *answers(T0, answers_by_model))
    scene.when("inputs", received(T0))
    return scene.when("inputs", resolved(T0)).then(RoundScored).only(RoundScored)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("function", [each, in_columns])
def test_a_model_without_a_score_yet_is_not_charged_and_nobody_is_at_fault(function, policy):
    contract = CrunchContract(score_round=function, absence_policy=policy)
    entries = {row.model_id: row for row in scored_with(contract, SAID).data.entries()}
    assert entries["a"].units == {"value": UNIT // 2}
    assert entries["flat"] == ScoreEntry("flat", "FAILED", "nobody", reason="has not traded yet")
    charge = {"ignore": None, "zero": 0, "worst": UNIT // 2, "scored": -UNIT}[policy]
    assert entries["gone"] == ScoreEntry("gone", "ABSENT", "model", charge)
    # A model that did not answer is absent all the same; the function only says that it is charged nothing.
    assert entries["idle"] == ScoreEntry("idle", "ABSENT", "model", None if policy == "scored" else charge)


@pytest.mark.parametrize("others", [{"a": 0.5}, {}])
def test_a_function_of_one_answer_can_return_it_too(others):
    """Whether or not it scores another answer by this truth."""
    contract = CrunchContract(score_prediction=alone, absence_policy="zero")
    entries = {row.model_id: row for row in scored_with(contract, {"flat": 0.0, **others}).data.entries()}
    assert entries["flat"] == ScoreEntry("flat", "FAILED", "nobody", reason="has not traded yet")


def test_it_is_counted_separately_and_in_no_participation():
    contract = CrunchContract(score_round=each, absence_policy="zero")
    event = scored_with(contract, {"a": 0.5, "flat": 0.0, "gone": "ABSENT"})
    scene = given(SnapshotStage(shelf(contract))).when("scores", configured(absence_policy="zero"), event)
    taken = {
        event.data.model_id: event.data
        for event in scene.when("scores", scored_until(T0 + HOUR)).all(SnapshotTaken)
    }
    flat, gone = taken["flat"], taken["gone"]
    assert (flat.no_score_count, flat.failed_count, flat.scored_count, flat.charged_count) == (1, 0, 0, 0)
    assert (flat.rounds_count, gone.rounds_count) == (0, 1)
    assert (gone.absent_model_count, gone.charged_count) == (1, 1)


def test_a_round_in_which_nobody_has_a_score_yet_counts_for_nobody():
    contract = CrunchContract(score_round=each)
    scene = given(SnapshotStage(shelf(contract))).when("scores", configured())
    scene.when("scores", scored_with(contract, {"flat": 0.0, "other": 0.0}))
    scene.when("scores", scored_until(T0 + HOUR - MINUTE + MINUTE))
    assert {event.data.rounds_count for event in scene.all(SnapshotTaken)} == {0}


@pytest.mark.parametrize("policy", ["ignore", "zero", "worst"])
def test_another_models_absurd_answer_costs_a_model_without_a_score_nothing(policy):
    def raising(prediction: Any, truth: Any) -> Any:
        return alone(prediction, truth) if prediction.value <= 1 else 1 / 0

    for function in (
        raising,
        lambda prediction, truth: alone(prediction, truth) if prediction.value <= 1 else {"value": 1e300},
    ):
        contract = CrunchContract(score_prediction=function, absence_policy=policy)
        scored = scored_with(contract, {"a": 0.5, "absurd": 1e300, "flat": 0.0})
        entries = {row.model_id: row for row in scored.data.entries()}
        assert entries["flat"] == ScoreEntry("flat", "FAILED", "nobody", reason="has not traded yet")
        assert entries["absurd"].fault == "model"
