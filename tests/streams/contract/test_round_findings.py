"""Findings of `contract check` about a contract that scores rounds as a whole."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.streams.build import PUBKEY

from coordinator.infra.contracts.trial_calls import calls_of
from coordinator.streams.contract import CrunchContract, RoundScores, ScoreResult
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.log.errors import ContractError
from coordinator.streams.settings import Settings


def quadratic(answers, truth):
    value = np.clip(answers.column("value"), -1, 1)
    return 2 * value * np.sign(truth.return_) - value**2


def relative(answers, truth, context):
    score = quadratic(answers, truth)
    return {"value": score - np.nanmean(score)}


def betting(answers, truth, context):
    score = quadratic(answers, truth)
    wealth = {
        name: context.states.get(name, 100.0) + (0.0 if np.isnan(value) else float(value))
        for name, value in zip(answers.models, score, strict=True)
    }
    return RoundScores({"value": score}, states=wealth)


def by_row(answers, truth, context):
    score = np.nan_to_num(quadratic(answers, truth), nan=-9)
    places = np.argsort(np.argsort(-score, kind="stable"))
    return {"value": 1.0 / (1 + places)}


def of_size(answers, truth, context):
    value = answers.column("value")
    return {"value": np.sign(value * truth.return_) * np.log1p(np.abs(value))}


def fragile(answers, truth, context):
    if np.nanmax(np.abs(answers.column("value"))) > 1e8:
        raise OverflowError("too large")
    return relative(answers, truth, context)


def findings_of(function: Any, **fields: Any) -> dict[str, Any]:
    contract = CrunchContract(score_round=function, crunch_pubkey=PUBKEY, **fields)
    return {finding.check: finding for finding in examine(contract, Settings())}


@pytest.mark.parametrize("function", [relative, betting])
def test_a_round_that_can_be_played_has_no_fault(function):
    result = findings_of(function)
    assert {finding.state for finding in result.values()} == {State.OK}, result
    assert {"score_round", "score varies", "score and size", "score and place"} <= set(result)
    assert "score_prediction" not in result
    assert result["score_round"].says.startswith("gives value for 12 models in a round")
    check_contract(CrunchContract(score_round=function))


def test_carried_state_is_reported():
    assert findings_of(betting)["score_round"].says.endswith("and carries a state for 13 of them")


FAULTS = {
    # a function, the check, and its message
    "raises": (lambda a, t, c: 1 / 0, "score_round", "division by zero"),
    "forgets who is absent": (
        lambda a, t, c: [answer.output.value for answer in a], "score_round", "'NoneType' object has no attribute 'value'",
    ),
    "too few": (lambda a, t, c: {"value": a.column("value")[:-1]}, "score_round", "13 models were asked"),
    "takes too little": (lambda a, t: relative(a, t, None), "score_round", "is called with (answers, ground_truth, context)"),
    "a stub": (lambda a, t, c: {"value": np.zeros(len(a))}, "score varies", "score_round gives 0"),
    "blind to the outcome": (lambda a, t, c: {"value": np.clip(a.column("value"), -1, 1)}, "score varies", "does not look at the outcome"),
    "breaks ties by row": (by_row, "score and place", "goes by a model's id or its place"),
    "rewards size": (of_size, "score and size", "score_round rewards size"),
    "one absurd answer ends the round of all": (fragile, "score and size", "too large"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "check", "says"), FAULTS.values(), ids=FAULTS)
def test_a_round_that_cannot_be_played_is_a_fault(function, check, says):
    result = findings_of(function)
    assert result[check].state is State.FAULT, result
    assert says in result[check].says


def test_the_dry_run_names_the_field():
    with pytest.raises(ContractError, match=r"contract field score_round: .*division by zero"):
        check_contract(CrunchContract(score_round=lambda a, t, c: 1 / 0))


class Held(ScoreResult):
    """A score with a number that has no default."""

    entry: float


def holding(answers, truth, context):
    """Buys at the current price, so a first round always scores nothing."""
    states = {
        answer.model_id: [answer.output.value, truth.resolved_price] for answer in answers if answer.output
    }
    worth = [
        size * (truth.resolved_price / entry - 1)
        for size, entry in (context.states.get(model, [0.0, 1.0]) for model in answers.models)
    ]
    return RoundScores([{"value": value, "entry": 0.0} for value in worth], states=states)


def test_a_score_that_later_rounds_derive_from_the_state_is_not_called_a_stub():
    varies = findings_of(holding, score_type=Held)["score varies"]
    assert (varies.state, "the state that it leaves differs" in varies.says) == (State.UNKNOWN, True)


def test_a_state_that_never_changes_does_not_make_a_stub_a_score():
    def idle(answers, truth, context):
        return RoundScores([0.0] * len(answers), states=dict.fromkeys(answers.models, 1))

    assert findings_of(idle)["score varies"].state is State.FAULT


def test_two_sample_scores_have_every_number_that_a_score_must_have():
    contract = CrunchContract(score_round=holding, score_type=Held, crunch_pubkey=PUBKEY)
    summary = dict(calls_of(contract, "candle"))["aggregate_snapshot, for two scores"]()
    assert json.loads(summary) == {"value": -0.041666667, "entry": -0.041666667}
