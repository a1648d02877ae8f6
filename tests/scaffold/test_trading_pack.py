"""What the trading pack's page claims about its scoring, tried through the node's own scorer on a rendered contract."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from tests.scaffold.workspace import load_contract

from coordinator.streams.contract import RoundContext
from coordinator.streams.events import NO_OUTPUT
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.round_columns import AskedModels
from coordinator.streams.scores.round_scorer import RoundScorer

MINUTE = 60_000
UNIT = 1e-9
FEE, STAKE, CARRY_A_MINUTE = 0.0011, 10_000.0, 0.1095 / 365 / 1440
FLAT = (100.0,) * 11
"""A price that does not move for ten minutes."""
RISE = tuple(100.0 + i for i in range(11))
AWAY, BY_NODE = "ABSENT", "ABSENT by the node"


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with load_contract("trading", tmp_path_factory.mktemp("trading")) as loaded:
        yield loaded


class Session:
    """Rounds of a minute by the node's scorer, each with the state after the previous one."""

    def __init__(self, contract: Any) -> None:
        self.contract, self.scorer, self.carried = contract, RoundScorer(contract), Carried()
        self.scores: dict[str, list[float | None]] = {}
        self.costs: dict[str, list[float | None]] = {}

    def play(self, signals: Mapping[str, Sequence[float | str]], prices: Sequence[float]) -> Session:
        """Each model's signal in each minute, or that it is away."""
        for i, (before, after) in enumerate(itertools.pairwise(prices)):
            self._round(i, {model: each[i] for model, each in signals.items()}, before, after)
        return self

    def _round(self, i: int, signals: Mapping[str, float | str], before: float, after: float) -> None:
        models = sorted(signals)
        missed = {
            place: ("ABSENT", "model" if signals[model] == AWAY else "node")
            for place, model in enumerate(models)
            if isinstance(signals[model], str)
        }
        outputs = [
            NO_OUTPUT if place in missed else msgspec.Raw(json.dumps({"signal": signals[model]}).encode())
            for place, model in enumerate(models)
        ]
        context = RoundContext(
            scope_key="60s",
            subject="BTCUSDT",
            horizon_seconds=60,
            step_seconds=15,
            point=i * MINUTE,
            resolvable_at=(i + 1) * MINUTE,
            **self.carried.given(),
        )
        change = after / before - 1.0
        truth = self.contract.ground_truth_type.model_validate(
            {"entry_price": before, "resolved_price": after, "return": change, "direction_up": change > 0}
        )
        outcome = self.scorer.score(
            AskedModels(models, [""] * len(models), outputs, missed), truth, context, self.carried
        )
        assert not outcome.raised
        self.carried.take(outcome.states, outcome.shared)
        for place, model in enumerate(models):
            units = None if place in outcome.unscored else outcome.units["value"][place]
            self.scores.setdefault(model, []).append(None if units is None else units * UNIT)
            cost = outcome.charges.get(place)
            self.costs.setdefault(model, []).append(None if cost is None else cost * UNIT)

    def account(self, model: str) -> dict[str, float]:
        return json.loads(bytes(self.carried.states[model]))

    def total(self, model: str) -> float:
        """The sum on the board: scores and charges for absence."""
        return math.fsum(amount for amount in (*self.scores[model], *self.costs[model]) if amount is not None)


@pytest.mark.parametrize("signal", [0.0, -1.0, 1, 0.123456])
def test_a_valid_answer_is_accepted(signal, contract):
    assert check_output({"signal": signal}, contract.output_type, 1000)[1] == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"signal": 1.0001},
        {"signal": -2},
        {"signal": math.nan},
        {"signal": math.inf},
        {"signal": None},
        {},
        0.5,
    ],
)
def test_an_invalid_answer_is_refused(answer, contract):
    assert check_output(answer, contract.output_type, 1000)[1].startswith("BAD_OUTPUT")


def test_scores_and_charges_of_absence_add_up_to_the_net_profit(contract):
    rng = random.Random(1)
    prices = [100.0]
    for _ in range(200):
        prices.append(prices[-1] * (1 + rng.gauss(0, 0.003)))
    signals = {
        name: [rng.choice([AWAY, BY_NODE, 0.0, rng.uniform(-1, 1)]) for _ in range(200)] for name in "abc"
    }
    session = Session(contract).play(signals, prices)
    for name in signals:
        assert session.total(name) == pytest.approx(session.account(name)["net_profit"], abs=1e-6)


@pytest.mark.parametrize("away", [AWAY, BY_NODE])
def test_silence_keeps_the_position_whoever_is_at_fault(away, contract):
    signals = {"silent": [0.5, *[away] * 9], "speaking": [0.5] * 10}
    session = Session(contract).play(signals, RISE)
    assert session.account("silent") == session.account("speaking")
    assert session.total("silent") == session.total("speaking")
    assert session.costs["silent"][0] is None
    assert session.scores["silent"][1:] == [None] * 9


def test_a_loss_cannot_be_escaped_by_silence(contract):
    fall = RISE[::-1]
    session = Session(contract).play({"gone": [1.0, *[AWAY] * 9], "out": [1.0, *[0.0] * 9]}, fall)
    assert session.total("gone") < session.total("out") < 0


def test_a_model_that_never_traded_has_no_score_and_pays_nothing(contract):
    session = Session(contract).play({"flat": [0.0] * 10, "away": [AWAY] * 10, "in": [0.1] * 10}, FLAT)
    assert session.scores["flat"] == session.scores["away"] == [None] * 10
    assert session.total("flat") == session.total("away") == 0
    assert "flat" not in session.carried.states
    assert None not in session.scores["in"]


def test_after_a_trade_a_flat_position_scores_zero(contract):
    session = Session(contract).play({"a": [1.0, *[0.0] * 9]}, FLAT)
    assert session.scores["a"][2:] == [0.0] * 8


GAMES = {
    "in and out each minute": [1.0, 0.0] * 5,
    "long and short each minute": [1.0, -1.0] * 5,
    "in by ten orders": [0.1 * i for i in range(1, 11)],
    "a little noise": [0.5 + 0.01 * (-1) ** i for i in range(10)],
}


@pytest.mark.parametrize("game", GAMES)
def test_no_way_of_trading_saves_the_fee(game, contract):
    """If the price does not move, the loss is exactly the traded amount times the fee, and the carry."""
    session = Session(contract).play({"a": GAMES[game]}, FLAT)
    signals = [0.0, *GAMES[game]]
    traded = sum(abs(after - before) for before, after in itertools.pairwise(signals)) * STAKE
    held = sum(abs(signal) for signal in GAMES[game]) * STAKE
    assert session.total("a") == pytest.approx(-FEE * traded - CARRY_A_MINUTE * held, abs=1e-6)


def test_a_gain_is_not_compounded(contract):
    prices = [100.0, 200.0, 200.0, 400.0]
    session = Session(contract).play({"again": [1.0, 0.0, 1.0]}, prices)
    assert session.scores["again"][2] == pytest.approx(STAKE * (1 - FEE - CARRY_A_MINUTE), abs=1e-6)


def test_models_that_join_or_leave_change_nobody_elses_score(contract):
    with_others = Session(contract).play({"a": [0.5] * 10, "b": [-1.0] * 10, "c": [AWAY] * 10}, RISE)
    assert Session(contract).play({"a": [0.5] * 10}, RISE).scores["a"] == with_others.scores["a"]


def test_only_a_profit_is_paid_and_without_any_profit_nobody_is(contract):
    (pool,) = contract.payout.pools
    assert pool.above == 0
    assert {window.rule for window in contract.aggregation.windows} == {"sum"}
    assert contract.aggregation.checkpoint_key == "score_anchor"
