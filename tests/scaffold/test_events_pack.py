"""What the events pack's page claims about its scoring, tried through the node's own scorer on a rendered contract."""

from __future__ import annotations

import json
import math
import random
from statistics import fmean
from typing import Any

import msgspec
import pytest
from tests.scaffold.workspace import load_contract

from coordinator.streams.contract.questions import scope_of
from coordinator.streams.predictions.replies import check_output

NO_IDEA = 0.25
HOUR = 3_600_000


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with load_contract("events", tmp_path_factory.mktemp("events")) as loaded:
        yield loaded


def score(contract: Any, probability_by_hour: dict[int, float], outcome: int) -> float:
    """The score of answers by the hour of their arrival, for a question that is open for ten hours."""
    answers = [{"at": hour * HOUR, "output": {"probability": p}} for hour, p in probability_by_hour.items()]
    told = {"answers": answers, "opens_at": 0, "closes_at": 10 * HOUR}
    return contract.score_prediction(told, contract.ground_truth_type(outcome=outcome))["value"]


@pytest.mark.parametrize("answer", [{"probability": 0}, {"probability": 1}, {"probability": 0.3}])
def test_a_valid_answer_is_accepted(answer, contract):
    assert check_output(answer, contract.output_type, 1000)[1] == ""


@pytest.mark.parametrize(
    "answer", [{"probability": p} for p in (-0.1, 1.1, math.nan, math.inf, None, "yes")] + [{}, 0.5]
)
def test_an_invalid_answer_is_refused(answer, contract):
    assert check_output(answer, contract.output_type, 1000)[1].startswith("BAD_OUTPUT")


@pytest.mark.parametrize("truth", [{"outcome": 0.5}, {"outcome": 2}, {}, {"outcome": "yes"}])
def test_a_truth_is_yes_or_no(truth, contract):
    with pytest.raises(ValueError, match="outcome"):
        contract.ground_truth_type.model_validate(truth)


def test_waiting_for_news_loses_what_was_known_before(contract):
    assert score(contract, {0: 0.8}, 1) == pytest.approx(0.04)
    assert score(contract, {9: 1.0}, 1) == pytest.approx(0.9 * NO_IDEA)
    assert score(contract, {0: 0.2, 5: 0.9}, 1) == pytest.approx((0.64 + 0.01) / 2)


def test_an_honest_answer_is_never_worse_than_silence(contract):
    assert contract.absence_policy.value == NO_IDEA
    rng = random.Random(3)
    for p in (0.05, 0.3, 0.5, 0.9):
        outcomes = [int(rng.random() < p) for _ in range(4000)]
        assert fmean(score(contract, {0: p}, outcome) for outcome in outcomes) <= NO_IDEA + 1e-9


def test_a_model_without_knowledge_is_not_paid_and_lower_is_better(contract):
    (pool,) = contract.payout.pools
    assert pool.above == NO_IDEA
    assert contract.aggregation.ranking_direction == "asc"
    assert contract.coverage.share == 0.5


@pytest.mark.parametrize(
    ("tags", "scope"), [(["Politics"], "politics"), (["x", "Politics"], "politics"), ([], "other")]
)
def test_a_question_is_asked_in_the_scope_of_its_tags(tags, scope, contract):
    assert scope_of(contract.questions.terms(), tags) == scope


def test_the_board_is_the_weighted_mean_of_the_last(contract):
    windows = {window.name: window for window in contract.aggregation.windows}
    assert windows["overall"].combines == {"long": 0.7, "recent": 0.3}
    assert [(windows[name].last, windows[name].least) for name in ("long", "recent")] == [
        (600, 10),
        (100, 10),
    ]
    assert json.loads(msgspec.json.encode(contract.questions.terms()))["counts"] == "history"
