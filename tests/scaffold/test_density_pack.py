"""What the density pack's page claims about its scoring, tried through the node's own code on a rendered contract."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean
from typing import Any

import msgspec
import pytest
from tests.scaffold.workspace import load_contract

from coordinator.streams.contract import RoundContext
from coordinator.streams.contract.checking.samples import sample_records, sample_window
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.round_columns import AskedModels
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.scores.units import to_float

ROUNDS = 1500
WIDTHS = (2.0, 5.0, 12.0)
STEPS = 5
CONTEXT = RoundContext(
    scope_key="5m", subject="BTCUSDT", horizon_seconds=300, step_seconds=60, point=0, resolvable_at=300_000
)


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with load_contract("density", tmp_path_factory.mktemp("density")) as loaded:
        yield loaded


def norm(loc: float, scale: float, weight: float = 1.0) -> dict[str, Any]:
    density = {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}
    return {"density": density, "weight": weight}


def answer(*components: dict[str, Any], steps: int = STEPS) -> dict[str, Any]:
    return {"steps": [{"type": "mixture", "components": list(components)}] * steps}


def scores(contract, answers: dict[str, dict[str, Any]], changes: list[float]) -> dict[str, float]:
    """One round by the node's scorer: model -> value."""
    models = sorted(answers)
    asked = AskedModels(
        models,
        [""] * len(models),
        [msgspec.Raw(msgspec.json.encode(answers[model_id])) for model_id in models],
        {},
    )
    truth = contract.ground_truth_type(changes=changes)
    outcome = RoundScorer(contract).score(asked, truth, CONTEXT, Carried())
    assert outcome.unscored == {}
    return {
        model_id: to_float(units, 9) for model_id, units in zip(models, outcome.units["value"], strict=True)
    }


# --- what is refused ----------------------------------------------------------------------------------------


ACCEPTED = {
    "one component": answer(norm(0, 5)),
    "three": answer(norm(0, 5), norm(1, 20, 0.1), norm(-3, 1, 5)),
    "types left out": {"steps": [{"components": [{"density": {"name": "norm", "params": {"loc": 0, "scale": 1}}, "weight": 1}]}] * 5},
}  # fmt: skip
REFUSED = {
    "an unknown density": answer({"density": {"type": "builtin", "name": "cauchy", "params": {"loc": 0, "scale": 1}}, "weight": 1}),
    "code for a density": answer({"density": {"type": "statistics", "name": "norm", "params": {"loc": 0, "scale": 1}}, "weight": 1}),
    "scale 0": answer(norm(0, 0)),
    "scale below 0": answer(norm(0, -1)),
    "a spike": answer(norm(0, 1e-9)),
    "four components": answer(*[norm(0, 1)] * 4),
    "no component": answer(),
    "a mixture in a mixture": answer({"density": answer(norm(0, 1))["steps"][0], "weight": 1}),
    "four steps": answer(norm(0, 1), steps=4),
    "six steps": answer(norm(0, 1), steps=6),
    "weight 0": answer(norm(0, 1, 0)),
    "weight below 0": answer(norm(0, 1), norm(0, 1, -0.5)),
    "NaN": answer(norm(math.nan, 1)),
    "infinite": answer(norm(0, math.inf)),
    "huge": answer(norm(1e300, 1)),
    "null": {"steps": None},
    "a number": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("answer", ACCEPTED.values(), ids=ACCEPTED)
def test_a_valid_answer_is_accepted(answer, contract):
    assert check_output(answer, contract.output_type, contract.output_max_bytes)[1] == ""


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_an_invalid_answer_is_refused(answer, contract):
    plain, reason = check_output(answer, contract.output_type, contract.output_max_bytes)
    assert (plain, reason[:10]) == (None, "BAD_OUTPUT")


def test_the_largest_answer_is_within_the_limit(contract):
    most = answer(*[norm(-9999.123456789, 9999.123456789, 999999.123456789)] * 3)
    assert check_output(most, contract.output_type, contract.output_max_bytes)[1] == ""


# --- what happened -------------------------------------------------------------------------------------------


def test_the_truth_is_the_change_within_each_step_in_basis_points(contract):
    prices = (100.0, 101.0, 101.0, 99.99, 100.0, 100.0)
    truth = contract.resolve_ground_truth(sample_records(contract, "candle", prices))
    assert truth["changes"] == pytest.approx([100, 0, -100, 1.0001, 0], abs=1e-3)


def test_a_step_without_a_record_has_no_truth(contract):
    records = sample_records(contract, "candle", (100.0, 101.0, 101.0, 99.99, 100.0, 100.0))
    assert contract.resolve_ground_truth(records[:3] + records[4:]) is None
    assert contract.resolve_ground_truth(records[:5]) is None


def test_a_sample_window_is_as_long_as_the_horizon(contract):
    records = sample_window(contract, "candle", (100.0, 110.0, 100.0))
    closes = [record.values["close"] for record in records]
    assert closes == [100.0, 104.0, 108.0, 108.0, 104.0, 100.0]
    assert len(sample_window(contract, "candle", [1.0] * 7)) == 7


# --- games ---------------------------------------------------------------------------------------------------


def gauss(loc: float, scale: float) -> dict[str, Any]:
    return answer(norm(loc, scale))


GAMES: dict[str, Callable[[float, random.Random], dict[str, Any]]] = {
    "always as wide": lambda width, rng: gauss(0, 5),
    "half as wide": lambda width, rng: gauss(0, width / 2),
    "twice as wide": lambda width, rng: gauss(0, 2 * width),
    "a spike in the middle": lambda width, rng: gauss(0, 0.01),
    "a spike anywhere": lambda width, rng: gauss(rng.gauss(0, width), 0.01),
    "three spikes": lambda width, rng: answer(*[norm(i * width, 0.01) for i in (-1, 0, 1)]),
    "too high": lambda width, rng: gauss(width / 2, width),
    "as wide as may be": lambda width, rng: gauss(0, 10_000),
}


@pytest.fixture(scope="module")
def means(contract):
    """Mean score of an honest model and of each game, in rounds whose true width is known."""
    rng = random.Random(3)
    total: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        width = rng.choice(WIDTHS)
        answers_by_model = {name: play(width, rng) for name, play in GAMES.items()} | {
            "honest": gauss(0, width)
        }
        changes = [rng.gauss(0, width) for _ in range(STEPS)]
        for name, value in scores(contract, answers_by_model, changes).items():
            total.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in total.items()}


@pytest.mark.parametrize("game", GAMES)
def test_an_honest_model_earns_more_than(game, means):
    assert means["honest"] > means[game] + 0.001


def test_silence_earns_the_worst_score_of_the_round(contract):
    assert contract.absence_policy == "zero"
    assert contract.min_participation == 0.5
    assert min(scores(contract, {"good": gauss(0, 5), "bad": gauss(0, 9999)}, [1.0] * STEPS).values()) == 0


def test_the_deadline_leaves_little_of_the_future_visible_and_rounds_do_not_overlap(contract):
    (schedule,) = contract.schedules()
    assert contract.deadline_seconds <= schedule.scope.step_seconds / 10
    assert schedule.interval_seconds >= schedule.scope.horizon_seconds
