"""The contract: what authors import, what is refused and by which field, and what its hash covers."""

from __future__ import annotations

import importlib
import types
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from tests.streams.build import PUBKEY

from coordinator.infra.contracts.loading import contract_hash
from coordinator.streams.addresses import is_pubkey
from coordinator.streams.contract import (
    FRAC64_ONE,
    Aggregation,
    AggregationWindow,
    CrunchContract,
    InferenceOutput,
    PredictionScope,
    ScheduledPrediction,
    ScoreResult,
)
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log.errors import ContractError, OperatorError
from coordinator.streams.settings import Settings

PUBLIC = (
    "CrunchContract",
    "PredictionScope",
    "Aggregation",
    "AggregationWindow",
    "InferenceOutput",
    "ScoreResult",
    "EmissionCheckpoint",
    "FRAC64_ONE",
)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_challenge_authors_import(name):
    module = importlib.import_module("coordinator.streams.contract")
    assert hasattr(module, name)
    assert name in module.__all__


def test_the_defaults_are_those_of_the_design():
    contract = CrunchContract()
    assert (contract.scope.subject, contract.scope.horizon_seconds, contract.scope.step_seconds) == (
        None,
        60,
        15,
    )
    assert [(w.name, w.hours) for w in contract.aggregation.windows] == [
        ("score_recent", 24), ("score_steady", 72), ("score_anchor", 168),
    ]  # fmt: skip
    assert (contract.aggregation.ranking_key, contract.aggregation.checkpoint_key) == (
        "score_recent",
        "period",
    )
    assert contract.aggregation.ranking_direction == "desc"
    assert (contract.deadline_seconds, contract.grace_seconds, contract.output_max_bytes) == (10, 5, 65536)
    assert (contract.score_decimals, contract.absence_policy, contract.min_participation) == (
        9,
        "ignore",
        0.0,
    )
    assert (contract.call_method.tick, contract.call_method.predict) == ("tick", "predict")
    assert FRAC64_ONE == 1_000_000_000
    assert InferenceOutput(value=0.5).value == 0.5
    assert ScoreResult(value=1.0).model_dump() == {"value": 1.0, "success": True, "failed_reason": None}
    assert ScheduledPrediction(scope_key="a").interval_seconds == 60


@pytest.mark.parametrize("kind", ["candle", "tick"])
def test_the_default_contract_passes_its_check(kind):
    check_contract(CrunchContract(), kind=kind)
    check_contract(CrunchContract(crunch_pubkey=PUBKEY, compute_provider=PUBKEY), kind=kind)


SCORES = {
    # value, return: score = 2 v d - v^2 with v clipped
    (1.0, 0.01): 1.0,
    (-1.0, 0.01): -3.0,
    (0.5, 0.01): 0.75,
    (0.5, -0.01): -1.25,
    (0.0, 0.01): 0.0,
    (0.5, 0.0): -0.25,
    (1e9, 0.01): 1.0,
    (-1e9, -0.5): 1.0,
}


@pytest.mark.parametrize(("answer_and_return", "score"), SCORES.items())
def test_the_default_score_is_proper_bounded_and_not_gamed_by_size(answer_and_return, score):
    """W16 of the peer: value times return is unbounded."""
    contract = CrunchContract()
    truth = contract.ground_truth_type.model_validate(
        {
            "entry_price": 1.0,
            "resolved_price": 1.0,
            "return": answer_and_return[1],
            "direction_up": answer_and_return[1] > 0,
        }
    )
    assert contract.score_prediction(InferenceOutput(value=answer_and_return[0]), truth)["value"] == score


def test_an_honest_answer_scores_best():
    """With a belief E[d] = m, the answer m has the highest expected score."""
    for m in (-0.8, -0.1, 0.0, 0.3, 1.0):
        expected = {v / 10: 2 * (v / 10) * m - (v / 10) ** 2 for v in range(-10, 11)}
        assert max(expected, key=expected.__getitem__) == pytest.approx(m)


def test_the_default_summary_leaves_out_failures_and_truths():
    class Rich(ScoreResult):
        hit: bool = True
        edge: float = 0.0

    scores = [Rich(value=1.0, edge=2.0), Rich(value=0.0, edge=4.0), Rich(value=99.0, success=False)]
    assert CrunchContract().aggregate_snapshot(scores) == {"value": 0.5, "edge": 3.0}
    assert CrunchContract().aggregate_snapshot([]) == {}


# --- broken contracts ------------------------------------------------------------------------------------


def raises(*arguments: Any) -> Any:
    raise RuntimeError("broken")


class Open(BaseModel):
    model_config = {"extra": "allow"}


class Labelled(ScoreResult):
    label: str


class Maybe(BaseModel):
    value: float | None = None


class Wordy(BaseModel):
    word: str


def truth_with(**changes: Any):
    base = {"entry_price": 1.0, "resolved_price": 1.0, "return": 0.0, "direction_up": False}
    return lambda records: base | changes


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "build_input raises": ({"build_input": raises}, "build_input: RuntimeError: broken"),
    "build_input gives nothing": ({"build_input": lambda records: None}, "input_type: ValidationError"),
    "build_input gives NaN": (
        {"build_input": lambda records: {"symbol": "x", "asof_ts": 1, "x": float("nan")}},
        "build_input: .x is not finite",
    ),
    "build_input gives what cannot be written": (
        {"build_input": lambda records: {"symbol": "\ud800", "asof_ts": 1, "x": "\ud800"}},
        "input_type: ",
    ),
    "raw_input_type wants more": ({"raw_input_type": Wordy}, "raw_input_type: ValidationError"),
    "resolve_ground_truth raises": ({"resolve_ground_truth": raises}, "resolve_ground_truth: RuntimeError"),
    "resolve_ground_truth gives nothing": (
        {"resolve_ground_truth": lambda records: None},
        "resolve_ground_truth: gave None",
    ),
    "resolve_ground_truth gives infinity": (
        {"resolve_ground_truth": truth_with(resolved_price=float("inf"))},
        "resolve_ground_truth: .resolved_price is not finite",
    ),
    "the truth is not of its type": ({"ground_truth_type": Wordy}, "ground_truth_type: ValidationError"),
    "score_prediction raises": ({"score_prediction": raises}, "score_prediction: RuntimeError: broken"),
    "score_prediction gives nothing": (
        {"score_prediction": lambda p, t: None},
        "score_type: ValidationError",
    ),
    "score_prediction gives NaN": (
        {"score_prediction": lambda p, t: {"value": float("nan")}},
        "score_prediction: NotRecordableError: score is not finite",
    ),
    "score_prediction gives too much": (
        {"score_prediction": lambda p, t: {"value": 1e12}},
        "score_prediction: NotRecordableError: score is beyond 2**53 units",
    ),
    "the value is no number": (
        {"score_prediction": lambda p, t: {"value": None}, "score_type": Maybe},
        "aggregation.value_field: ",
    ),
    "the value field is none of the score's": (
        {"aggregation": Aggregation(value_field="profit")},
        "aggregation.value_field: ",
    ),
    "a score that its numbers alone cannot make": (
        {"score_type": Labelled, "score_prediction": lambda p, t: {"value": 0.0, "label": "x"}},
        "score_type: ValidationError",
    ),
    "aggregate_snapshot raises": ({"aggregate_snapshot": raises}, "aggregate_snapshot: RuntimeError: broken"),
    "aggregate_snapshot gives a list": (
        {"aggregate_snapshot": lambda scores: [1]},
        "aggregate_snapshot: gave a list",
    ),
    "aggregate_snapshot gives NaN": (
        {"aggregate_snapshot": lambda scores: {"x": float("nan")}},
        "aggregate_snapshot: NotRecordableError",
    ),
    "a checkpoint key that is nowhere": (
        {"aggregation": Aggregation(checkpoint_key="sharpe")},
        "aggregation.checkpoint_key: 'sharpe' is none of",
    ),
    "a checkpoint key that is no number": (
        {
            "aggregation": Aggregation(checkpoint_key="mood"),
            "aggregate_snapshot": lambda scores: {"mood": "calm", "value": 1.0},
        },
        "aggregation.checkpoint_key: 'mood' is none of",
    ),
    "a ranking key that is nowhere": (
        {"aggregation": Aggregation(ranking_key="sharpe")},
        "aggregation.ranking_key: 'sharpe' is none of",
    ),
    "a live board by the checkpoint period": (
        {"aggregation": Aggregation(ranking_key="period")},
        "aggregation.ranking_key: 'period' is none of",
    ),
    "a window and a key of the summary of one name": (
        {"aggregate_snapshot": lambda scores: {"score_recent": 1.0}},
        "aggregation: a name means two things: ['score_recent']",
    ),
    "the period and a key of the summary of one name": (
        {"aggregate_snapshot": lambda scores: {"period": 1.0}},
        "aggregation: a name means two things: ['period']",
    ),
    "a window and a score field of one name": (
        {
            "aggregation": Aggregation(
                windows=[AggregationWindow(name="value", hours=1)], ranking_key="value"
            ),
            "aggregate_snapshot": lambda scores: {"median": 1.0},
        },
        "aggregation: a name means two things: ['value']",
    ),
    "build_emission raises": ({"build_emission": raises}, "build_emission: RuntimeError: broken"),
    "build_emission gives nothing": ({"build_emission": lambda *a: None}, "build_emission: ValidationError"),
    "build_emission pays too little": (
        {
            "build_emission": lambda e, c, *a: {
                "crunch": c,
                "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 1}],
            }
        },
        "build_emission: cruncher rewards sum to 1",
    ),
    "a key that is none": ({"crunch_pubkey": "me"}, "build_emission: crunch_pubkey"),
    "a provider that is none": ({"compute_provider": "me"}, "build_emission: compute_provider_rewards"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_fault_of_a_contract_is_named_by_its_field(changes, message):
    with pytest.raises(ContractError) as refused:
        check_contract(CrunchContract(**changes))
    assert str(refused.value).startswith("contract field ")
    assert message in str(refused.value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt field": ({"deadline_secnds": 5}, "deadline_secnds"),
    "a deadline of nothing": ({"deadline_seconds": 0}, "deadline_seconds"),
    "a deadline that is no number": ({"deadline_seconds": float("nan")}, "deadline_seconds"),
    "a negative grace": ({"grace_seconds": -1}, "grace_seconds"),
    "too many decimals": ({"score_decimals": 13}, "score_decimals"),
    "an unknown policy": ({"absence_policy": "forgive"}, "absence_policy"),
    "a share above one": ({"min_participation": 1.5}, "min_participation"),
    "a horizon of nothing": ({"scope": {"horizon_seconds": 0}}, "horizon_seconds"),
    "a misspelt field of a scope": ({"scope": {"horizon": 60}}, "horizon"),
    "a misspelt field of a schedule": (
        {"scheduled_predictions": [{"scope_key": "a", "every_seconds": 5}]},
        "every_seconds",
    ),
    "two schedules of one name": (
        {"scheduled_predictions": [{"scope_key": "a"}, {"scope_key": "a"}]},
        "share a scope_key",
    ),
    "a type that is none": ({"output_type": dict}, "output_type"),
    "a function that is none": ({"score_prediction": 5}, "score_prediction"),
    "a direction in other words": ({"aggregation": {"ranking_direction": "descending"}}, "ranking_direction"),
    "two windows of one name": (
        {
            "aggregation": {
                "windows": [{"name": "score_recent", "hours": 1}, {"name": "score_recent", "hours": 2}]
            }
        },
        "share a name",
    ),
    "a window of nothing": ({"aggregation": {"windows": [{"name": "score_recent", "hours": 0}]}}, "hours"),
}


@pytest.mark.parametrize(("fields", "named"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_declaration_is_refused_by_name(fields, named):
    with pytest.raises(ValidationError, match=named):
        CrunchContract(**fields)


def test_a_crunch_address_in_the_contract_is_checked_like_any_other():
    assert is_pubkey(PUBKEY)


# --- schedules and terms ---------------------------------------------------------------------------------


def test_without_schedules_there_is_one_for_every_subject():
    terms = make_terms(CrunchContract(), "h", Settings(feed_subjects=("BTCUSDT", "ETHUSDT")), 0)
    assert [(scope.scope_key, scope.subject, scope.horizon_seconds) for scope in terms.scopes] == [
        ("60s", "BTCUSDT", 60), ("60s", "ETHUSDT", 60),
    ]  # fmt: skip


def test_schedules_are_asked_in_order_and_inactive_ones_are_not():
    contract = CrunchContract(
        scheduled_predictions=[
            ScheduledPrediction(scope_key="b", order=2, scope=PredictionScope(subject="ETHUSDT")),
            ScheduledPrediction(scope_key="off", active=False),
            ScheduledPrediction(scope_key="a", order=1, interval_seconds=300),
        ]
    )
    terms = make_terms(contract, "h", Settings(feed_subjects=("BTCUSDT", "ETHUSDT")), 0)
    assert [(scope.scope_key, scope.subject, scope.interval_seconds) for scope in terms.scopes] == [
        ("a", "BTCUSDT", 300), ("a", "ETHUSDT", 300), ("b", "ETHUSDT", 60),
    ]  # fmt: skip


def test_a_subject_without_a_feed_is_refused_at_the_start():
    contract = CrunchContract(scope=PredictionScope(subject="DOGEUSDT"))
    with pytest.raises(OperatorError, match=r"DOGEUSDT.*FEED_SUBJECTS"):
        make_terms(contract, "h", Settings(feed_subjects=("BTCUSDT",)), 0)


def test_a_window_that_is_no_whole_number_of_snapshots_is_refused_at_the_start():
    """A window is a sum of snapshots. One shorter than a snapshot would always be empty, and nobody would be ranked."""
    contract = CrunchContract(
        aggregation=Aggregation(windows=[AggregationWindow(name="score_recent", hours=1)])
    )
    make_terms(contract, "h", Settings(snapshot_interval_seconds=1800), 0)
    with pytest.raises(OperatorError, match=r"score_recent.*SNAPSHOT_INTERVAL_SECONDS"):
        make_terms(
            contract, "h", Settings(snapshot_interval_seconds=7200, checkpoint_interval_seconds=7200), 0
        )


def test_an_author_may_subclass_the_contract():
    class Mine(CrunchContract):
        crunch_pubkey: str | None = PUBKEY
        aggregation: Aggregation = Aggregation(windows=[AggregationWindow(name="score_recent", hours=2)])

    check_contract(Mine())
    assert contract_hash(Mine()) != contract_hash(CrunchContract())
    assert isinstance(Mine().build_emission, types.FunctionType)
