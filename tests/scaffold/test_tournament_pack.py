"""What the tournament pack's page claims about its scoring, tried through the node's own scorer on a rendered contract."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from tests.scaffold.workspace import load_contract

from coordinator.infra.rounds.answers import AnswerableQuestion, answers_of
from coordinator.infra.rounds.files import FileRefusedError, read_content
from coordinator.streams.contract import RoundContext
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.round_columns import AskedModels
from coordinator.streams.scores.round_scorer import RoundScorer

ROWS = ["r1", "r2", "r3", "r4", "r5"]
TARGET = [0.0, 0.25, 0.5, 0.75, 1.0]
GOOD, BAD = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with load_contract("tournament", tmp_path_factory.mktemp("tournament")) as loaded:
        yield loaded


def answer(values: list[Any], rows: list[Any] | None = None) -> dict[str, Any]:
    return {"columns": {"id": ROWS if rows is None else rows, "prediction": values}}


def played(
    contract: Any,
    answers_by_model: dict[str, dict[str, Any]],
    target: list[float | None] | None = None,
    **stakes: float,
) -> dict[str, tuple[float, float] | str]:
    """One round by the node's scorer: model -> (score, gain of its stake), or why it has none."""
    models = sorted(answers_by_model)
    asked = AskedModels(
        models,
        [""] * len(models),
        [msgspec.Raw(msgspec.json.encode(answers_by_model[model_id])) for model_id in models],
        {},
    )
    truth = contract.ground_truth_type.model_validate({"columns": {"id": ROWS, "target": target or TARGET}})
    context = RoundContext(
        scope_key="question",
        subject="questions",
        horizon_seconds=0,
        step_seconds=0,
        point=0,
        resolvable_at=1,
        stakes=stakes,
    )
    outcome = RoundScorer(contract).score(asked, truth, context, Carried())
    unit = 10.0**-contract.score_decimals
    return {
        model: outcome.unscored[place][2]
        if place in outcome.unscored
        else (outcome.units["value"][place] * unit, outcome.units["payout"][place] * unit)
        for place, model in enumerate(models)
    }


@pytest.mark.parametrize("answer", [answer(GOOD), answer([0, 0, 0, 0, 1]), answer([0.5], [17])])
def test_a_valid_answer_is_accepted(answer, contract):
    assert check_output(answer, contract.output_type, contract.output_max_bytes)[1] == ""


@pytest.mark.parametrize(
    "answer",
    [
        answer([*GOOD[:4], 1.1]),
        answer([*GOOD[:4], -0.1]),
        answer([*GOOD[:4], math.nan]),
        answer([*GOOD[:4], None]),
        answer(GOOD[:4]),
        answer(GOOD, ["r1", "r1", "r3", "r4", "r5"]),
        answer([], []),
        {"columns": {"id": ROWS}},
        GOOD,
    ],
)
def test_an_invalid_answer_is_refused(answer, contract):
    assert check_output(answer, contract.output_type, contract.output_max_bytes)[1].startswith("BAD_OUTPUT")


def test_a_stake_wins_or_burns_the_clipped_score(contract):
    results = played(contract, {"a": answer(GOOD), "b": answer(BAD), "c": answer(GOOD)}, a=40.0, b=100.0)
    assert results == {"a": (1.0, 10.0), "b": (-1.0, -25.0), "c": (1.0, 0.0)}


def test_rows_are_matched_by_id_and_not_by_position(contract):
    turned = answer(GOOD[::-1], ROWS[::-1])
    assert played(contract, {"a": turned}, a=8.0) == {"a": (1.0, 2.0)}


def test_only_the_order_counts(contract):
    answers_by_model = {
        "a": answer([0.1, 0.3, 0.2, 0.9, 0.8]),
        "b": answer([x**9 for x in (0.1, 0.3, 0.2, 0.9, 0.8)]),
    }
    results = played(contract, answers_by_model, a=1.0, b=1.0)
    assert results["a"] == results["b"]


def test_an_answer_without_a_row_or_an_opinion_fails_and_affects_nobody_else(contract):
    answers_by_model = {"few": answer(GOOD[:4], ROWS[:4]), "flat": answer([0.5] * 5), "good": answer(GOOD)}
    results = played(contract, answers_by_model, few=1.0, flat=1.0, good=4.0)
    assert "1 rows are missing, 'r5'" in str(results["few"])
    assert "the same value" in str(results["flat"])
    assert results["good"] == (1.0, 1.0)


def test_a_row_without_a_target_does_not_count(contract):
    answers_by_model = {"a": answer([0.1, 0.2, 0.9, 0.4, 0.5])}
    assert played(contract, answers_by_model, [0.0, 0.25, None, 0.75, 1.0], a=4.0) == {"a": (1.0, 1.0)}


def test_payment_is_by_sums_of_gains(contract):
    (pool,) = contract.payout.pools
    assert pool.above == 0
    assert contract.aggregation.value_field == "payout"
    assert {window.rule for window in contract.aggregation.windows} == {"sum"}
    assert contract.absence_policy == "zero"


def handed_in(contract: Any, rows: str) -> Any:
    """The answer of a participant's file, written as the page for participants says."""

    def check_of(_asked: AnswerableQuestion) -> Any:
        return lambda output: check_output(output, contract.output_type, contract.output_max_bytes)

    asked = {"table": AnswerableQuestion("table", "question", "h")}
    (submitted,) = answers_of(read_content(f"id,prediction\n{rows}".encode()), asked, check_of)
    return msgspec.json.decode(submitted.output)


def test_a_participant_hands_in_a_file(contract):
    columns = handed_in(contract, "r1,0.25\nr2,1\n")["columns"]
    assert (columns["id"], columns["prediction"]) == (["r1", "r2"], [0.25, 1.0])
    with pytest.raises(FileRefusedError, match=r"a prediction is not in \[0, 1\]"):
        handed_in(contract, "r1,0.25\nr2,1.5\n")
    with pytest.raises(FileRefusedError, match="valid number"):
        handed_in(contract, "r1,0.25\nr2,\n")
