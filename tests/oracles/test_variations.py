"""Variations of the challenges' cases (holes, ties, refusals, no models) against each rule, coded a second time, plainly."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import pytest
from tests.checkout import root_on_path

with root_on_path():
    from tests.oracles.challenges import btc_up_period
    from tests.oracles.sessions import falcon_pot, predictoor_epochs, trading_session

START = 1_780_000_020


# --- btc-up ----------------------------------------------------------------------------------------------


def test_a_period_without_valid_answers_ranks_and_pays_nobody():
    silent = {"a": {"status": "absent", "fault": "model"}, "b": {"status": "answered", "value": math.nan}}
    for rounds, models in (([], []), ([{"entry": 1.0, "resolved": 2.0, "answers": silent}] * 3, ["a", "b"])):
        result = btc_up_period(
            {"absence_policy": "ignore", "min_participation": 0.0, "score_decimals": 9, "rounds": rounds}
        )
        assert result["ranking"] == [{"model": model, "rank": None, "key": None} for model in models]
        assert result["payouts_frac64"] == {}
        assert result["aggregates"]["period"] == dict.fromkeys(models)


# --- falcon ----------------------------------------------------------------------------------------------

POT = {
    "investment_fraction": 0.01, "inflation_bps": 7, "initial_wealth": 1000, "alpha_short": 0.3, "alpha_long": 0.05,
    "w_short": 0.4, "ewma_weight": 0.25, "horizon": 3,
}  # fmt: skip


def pot_by_hand(
    ticks: list[dict[str, float | None]], wealth: dict[str, float], warm_up: int
) -> dict[str, float]:
    short: dict[str, float] = {}
    long: dict[str, float] = {}
    realised = dict.fromkeys(wealth, 0.0)
    for i, tick in enumerate(ticks):
        playing = {model: likelihood for model, likelihood in tick.items() if likelihood is not None}
        for model, likelihood in playing.items():
            log = math.log(max(likelihood, 1e-12))
            short[model] = 0.3 * log + 0.7 * short.get(model, log)
            long[model] = 0.05 * log + 0.95 * long.get(model, log)
        if i < warm_up:
            continue
        if sum(playing.values()) > 0:
            weight = {model: math.exp(0.4 * short[model] + 0.6 * long[model]) for model in playing}
            pot = 1.0007 * sum(0.01 * wealth[model] for model in playing)
            for model, likelihood in playing.items():
                share = 0.25 * weight[model] / sum(weight.values()) + 0.75 * likelihood / sum(
                    playing.values()
                )
                wealth[model] = 0.99 * wealth[model] + pot * share
        for model, active in wealth.items():
            if active > 2000:
                realised[model] += 0.1 * active
                wealth[model] = 0.9 * active
    return {model: wealth[model] + realised[model] for model in wealth}


@pytest.mark.parametrize("warm_up", [0, 4])
def test_a_pot_with_a_warm_up_skipped_ticks_and_ticks_without_any_likelihood(warm_up: int):
    chance = random.Random(warm_up)
    models = ["a", "b", "c", "d"]
    ticks = [
        {model: chance.choice([None, 0.0, chance.uniform(0, 20)]) for model in models} for _ in range(30)
    ]
    ticks[5] = dict.fromkeys(models, 0.0)
    ticks[6] = dict.fromkeys(models)
    wealth = {"a": 1000.0, "b": 2500.0, "c": 1990.0, "d": 0.0}
    result = falcon_pot({
        "parameters": POT, "initial_wealth": wealth, "warm_up_ticks": warm_up, "pool_usd": 1.0, "likelihoods": ticks
    })  # fmt: skip
    assert result["total"] == pytest.approx(pot_by_hand(ticks, dict(wealth), warm_up))


# --- predictoor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["resolved_at", "price", "nothing"])
def test_an_epoch_without_a_truth_in_time_gives_the_stakes_back(missing: str):
    e = 1_780_000_800
    prices: dict[str, float | None] = {str(e - 300): 1.0, str(e): None if missing == "price" else 2.0}
    posts = [
        {"model": "a", "at": e - 301, "epoch": e, "up": True, "stake": 40},
        {"model": "b", "at": e - 500, "epoch": e, "up": False, "stake": 30},
        {"model": "b", "at": e - 300, "epoch": e, "up": True, "stake": 1},
        {"model": "b", "at": e - 310, "epoch": e, "up": False, "stake": math.nan},
    ]
    result = predictoor_epochs({
        "parameters": {"epoch_seconds": 300, "subscription_seconds": 86_400, "truth_timeout_seconds": 100},
        "balances": {"a": 50, "b": 50}, "prices": prices, "sales": [],
        "rounds": [{"epoch": e, "resolved_at": None if missing == "resolved_at" else e + 100, "posts": posts}],
    })  # fmt: skip
    (only,) = result["rounds"]
    expected = {"a": 70, "b": 0} if missing == "nothing" else {"a": 40, "b": 30}
    assert only["payouts"] == expected
    assert [(refusal["at"] - e, refusal["why"]) for refusal in only["refused"]] == [
        (-310, "not a direction and an amount"),
        (-300, "too late"),
    ]


# --- trading ---------------------------------------------------------------------------------------------

LIMITS = {"trading_fee_pct": 0.001, "spread_pct": 0.0005, "carry_annual_pct": 36.5, "max_position_size": 100.0,
          "max_portfolio_size": 150.0}  # fmt: skip


class Trader:
    """A trader's lot of each subject: [size, entry, time of its last mark]."""

    def __init__(self) -> None:
        self.held: dict[str, list[float]] = {}
        self.cash = 0.0
        """Realised profit, less fees and carry."""

    def buys(self, subject: str, amount: float, price: float, at: float) -> None:
        size = self.held.get(subject, [0.0])[0]
        same = size * amount > 0
        rest = sum(abs(lot[0]) for name, lot in self.held.items() if same or name != subject)
        wanted = min(abs(amount), 100.0 - abs(size) * same, max(0.0, 150.0 - rest))
        if wanted <= 0:
            return
        self.cash -= 0.0015 * wanted
        wanted = math.copysign(wanted, amount)
        if same:
            lot = self.held[subject]
            lot[1] = (lot[0] * lot[1] + wanted * price) / (lot[0] + wanted)
            lot[0] += wanted
            return
        closed = math.copysign(min(abs(wanted), abs(size)), size)
        if closed:
            lot = self.held[subject]
            self.cash += closed * (price / lot[1] - 1)
            lot[0] -= closed
            if not lot[0]:
                del self.held[subject]
        if wanted + closed:
            self.held[subject] = [wanted + closed, price, at]

    def marked(self, subject: str, at: float) -> None:
        if lot := self.held.get(subject):
            self.cash -= abs(lot[0]) * 36.5 / (365 * 86_400) * (at - lot[2])
            lot[2] = at

    def worth(self, prices: dict[str, float]) -> float:
        return self.cash + sum(
            size * (prices[name] / entry - 1) for name, (size, entry, _) in self.held.items()
        )


@pytest.mark.parametrize("mode", ["order", "target"])
def test_orders_are_cut_to_the_limits_and_each_subject_pays_carry_at_its_own_marks(mode: str):
    chance, at = random.Random(mode), START
    traders = {"a": Trader(), "b": Trader()}
    prices: dict[str, float] = {}
    events: list[dict[str, Any]] = []
    worth: list[dict[str, float]] = []
    for i in range(60):
        at += 1000
        marked = {"X": chance.uniform(80, 120)} if i % 3 else {"X": 100.0, "Y": chance.uniform(8, 12)}
        prices |= marked
        events.append({"at": at, "prices": marked})
        for trader in traders.values():
            for subject in marked:
                trader.marked(subject, at)
        subject, answers = chance.choice("XY"), {}
        for model, trader in traders.items():
            amount = chance.choice([0.0, round(chance.uniform(0, 300), 2)])
            sell = chance.random() < 0.5
            size = trader.held.get(subject, [0.0])[0]
            signed = -amount if sell else amount
            answers[model] = (
                {"action": "sell" if sell else "buy", "amount": amount}
                if mode == "order"
                else {"signal": signed}
            )
            change = signed if mode == "order" else signed - size
            if change:
                trader.buys(subject, change, prices[subject], at + 5)
        events += [{"at": at + 5, "subject": subject, "answers": answers}, {"at": at + 6, "snapshot": True}]
        worth.append({model: trader.worth(prices) for model, trader in traders.items()})
    # Bought after the last snapshot: it does not count.
    events.append(
        {"at": at + 7, "subject": "X", "answers": {"a": {"action": "buy", "amount": 9.0, "signal": 0.0}}}
    )
    result = trading_session({"parameters": LIMITS | {"mode": mode}, "models": ["a", "b"], "events": events})
    seen = [step["snapshot"] for step in result["steps"] if "snapshot" in step]
    for at_snapshot, expected in zip(seen, worth, strict=True):
        assert {model: book["net_pnl"] for model, book in at_snapshot.items()} == pytest.approx(expected)
    assert {row["model"]: row["key"] for row in result["ranking"]} == pytest.approx(worth[-1], abs=1e-8)
    for model, metrics in result["aggregates"].items():
        curve = [worth_by_model[model] for worth_by_model in worth]
        changes = [b - a for a, b in itertools.pairwise(curve)]
        losses = [change for change in changes if change < 0]
        assert metrics["max_drawdown"] == pytest.approx(
            max(max(curve[: i + 1]) - value for i, value in enumerate(curve))
        )
        assert metrics["sortino"] == pytest.approx(
            statistics.mean(changes) / math.sqrt(sum(loss * loss for loss in losses) / len(losses))
        )
