"""Values and exceptions of a contract's functions: numpy's numbers count as numbers, `sys.exit` is one failed score."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import BaseModel, Field

from coordinator.streams.contract import CrunchContract, ScoreResult
from coordinator.streams.contract.checking.check import Rehearsal, check_contract
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.strategies import by_weights, proportional, softmax
from coordinator.streams.contract.trial_answers import read_back, recorded
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.scores.scorer import Scorer
from coordinator.streams.settings import Settings

RISE = SimpleNamespace(return_=0.01)


def test_a_scoring_function_that_calls_sys_exit_fails_one_prediction():
    def score(prediction, truth):
        if prediction.value < 0:
            sys.exit(1)
        return {"value": prediction.value}

    scorer = Scorer(CrunchContract(score_prediction=score))
    units, reason, _ = scorer.score({"value": -1.0}, RISE)
    assert (units, reason) == ({}, "score_prediction: SystemExit: 1")
    assert scorer.score({"value": 0.5}, RISE)[0] == {"value": 500_000_000}
    findings = {
        finding.check: finding for finding in examine(CrunchContract(score_prediction=score), Settings())
    }
    assert findings["score varies"].state is State.FAULT
    assert "score_prediction" in findings["score varies"].says
    assert "SystemExit" in findings["score varies"].says


def test_ctrl_c_in_a_scoring_function_stops_the_process():
    def score(prediction, truth):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scorer(CrunchContract(score_prediction=score)).score({"value": 1.0}, RISE)


class More(ScoreResult):
    extra: float = 0.0


def test_numpy_numbers_are_accepted_wherever_a_function_returns_numbers():
    contract = CrunchContract(
        crunch_pubkey="1" * 32,
        score_type=More,
        build_input=lambda records: {
            "symbol": "A",
            "asof_ts": np.int64(1),
            "closes": np.array([1.5], np.float32),
        },
        resolve_ground_truth=lambda records: {
            "entry_price": np.float32(1),
            "resolved_price": np.float32(2),
            "return": np.float64(1),
            "direction_up": np.bool_(True),
            "more": np.float32(0.5),
        },
        score_prediction=lambda p, t: {"value": np.float32(0.5), "extra": np.int64(2)},
        aggregate_snapshot=lambda scores: {"value": np.float32(0.5), "best": np.int64(1)},
        build_emission=by_weights(lambda e: np.array([1 / entry["rank"] for entry in e], np.float32)),
    )
    check_contract(contract)
    rehearsal = Rehearsal(contract)
    for step in rehearsal.steps().values():
        step()
    assert rehearsal.summary_keys == ["value", "best"]
    assert Scorer(contract).score({"value": 1.0}, RISE)[0] == {"value": 500_000_000, "extra": 2_000_000_000}


@pytest.mark.parametrize("strategy", [softmax(np.float32(2)), proportional(np.float64(0.1))])
def test_a_strategy_accepts_numpy_numbers(strategy):
    check_contract(CrunchContract(crunch_pubkey="1" * 32, build_emission=strategy))


class Aliased(BaseModel):
    price: float = Field(alias="class")
    tags: set[str] = set()


def test_a_sample_answer_is_tried_as_it_would_be_recorded():
    answer = Aliased.model_validate({"class": 1.0, "tags": ["b"]})
    assert recorded(answer) == {"class": 1.0, "tags": ["b"]}
    assert read_back(answer) == answer
    output, _ = check_output({"class": 1.0}, Aliased, 1000)
    assert Scorer(
        CrunchContract(output_type=Aliased, score_prediction=lambda p, t: {"value": p.price})
    ).score(output, RISE)[0] == {"value": 1_000_000_000}


class Lossy(BaseModel):
    """It changes when it is recorded, because its own serializer leaves out what scoring needs."""

    value: float = Field(exclude=True)


def test_an_answer_that_cannot_be_read_back_is_a_fault_of_the_output_type():
    findings = {finding.check: finding for finding in examine(CrunchContract(output_type=Lossy), Settings())}
    assert findings["score_prediction"].state is State.FAULT
    assert "output_type" in findings["score_prediction"].says
