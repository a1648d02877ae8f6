"""Edge cases with results computed by hand: no events, no models, no price, no account."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.checkout import root_on_path

with root_on_path():
    from tests.oracles.challenges import btc_up_period, synth_payout
    from tests.oracles.sessions import falcon_pot, falcon_whole, predictoor_epochs, trading_session
    from tests.oracles.synths import synth_aggregate, synth_round

DAY = 86_400
E1 = 1_780_000_800


def up_or_down(**fields: Any) -> dict[str, Any]:
    return {"absence_policy": "worst_percentile", "min_participation": 0.0, "score_decimals": 9} | fields


def answered(value: Any) -> dict[str, Any]:
    return {"status": "answered", "value": value}


@pytest.mark.parametrize("price", [None, math.nan, math.inf])
def test_a_round_without_a_price_is_worth_nothing_and_costs_nothing(price: Any):
    answers = {"a": answered(1), "b": {"status": "absent", "fault": "model"}}
    result = btc_up_period(up_or_down(rounds=[
        {"entry": 100.0, "resolved": price, "answers": answers}, {"entry": 100, "resolved": 101, "answers": {"a": answered(1)}},
    ]))  # fmt: skip
    assert result["rounds"][0] == {"scores": {"a": None, "b": None}, "charges": {}}
    assert result["aggregates"]["period"] == {"a": 1.0, "b": None}
    assert result["payouts_frac64"] == {"a": 10**9}


def test_more_rounds_than_a_day_has_minutes_are_one_period():
    rounds = [
        {"entry": 1.0, "resolved": 2.0, "answers": {"a": answered(v)}} for v in [1.0] * 1441 + [0.0] * 1441
    ]
    result = btc_up_period(up_or_down(rounds=rounds))
    assert result["aggregates"]["period"] == {"a": 0.5}


def test_an_answer_of_another_type_is_its_models_failure():
    answers = {"a": answered(None), "b": answered("up"), "c": answered([1.0]), "d": answered(0)}
    result = btc_up_period(up_or_down(rounds=[{"entry": 2.0, "resolved": 1.0, "answers": answers}]))
    assert result["rounds"] == [
        {"scores": {"a": None, "b": None, "c": None, "d": 0.0}, "charges": {"a": 0.0, "b": 0.0, "c": 0.0}}
    ]


def test_a_payout_without_models_retains_everything():
    parameters = {"alpha": 1.0, "top_k": 4, "pool_usd": 1000.0, "benchmark_cutoff": False}
    assert synth_payout({"parameters": parameters, "models": []}) == {
        "by_horizon": {horizon: {"paid": [], "retained_micro": 500_000_000} for horizon in ("3600", "86400")},
        "by_model_micro": {},
        "pool_micro": 1_000_000_000,
    }


def test_a_payout_among_benchmarks_and_models_without_anchors_retains_everything():
    models = [
        {"model_id": "z", "player": "z", "is_benchmark": True, "scores": {"3600": 0.9, "86400": 0.9}},
        {"model_id": "a", "player": "p", "is_benchmark": False, "scores": {"3600": None, "86400": 0.0}},
        {"model_id": "b", "player": "q", "is_benchmark": False, "scores": {"3600": 0.4, "86400": 0.9}},
    ]
    for cutoff in (True, False):
        parameters = {"alpha": 1.0, "top_k": 1, "pool_usd": 10.0, "benchmark_cutoff": cutoff}
        result = synth_payout({"parameters": parameters, "models": models})
        paid = {"b": 5_000_000 if cutoff else 10_000_000}
        # At 3600 the benchmark is better than b; at 86400 they are equal, and equal is not better.
        assert result["by_model_micro"] in (paid, {} if cutoff else paid)
        assert result["by_horizon"]["3600"]["retained_micro"] == (5_000_000 if cutoff else 0)


RULES = {"mode": "order", "trading_fee_pct": 0.01, "spread_pct": 0.0, "carry_annual_pct": 0.0,
         "max_position_size": 100.0, "max_portfolio_size": 1000.0}  # fmt: skip
NOTHING = {"max_drawdown": 0.0, "hit_rate": 0.0, "sortino": 0.0}


def test_a_session_without_events_ranks_and_pays_nobody():
    result = trading_session({"parameters": RULES, "models": ["a", "b"], "events": []})
    assert result["steps"] == []
    assert result["aggregates"] == {"a": NOTHING, "b": NOTHING}
    assert result["payouts_frac64"] == {}


def test_an_order_without_a_price_above_0_is_refused_and_a_session_may_pass_midnight():
    at = 1_780_012_799  # a second before a midnight
    buy = {"a": {"action": "buy", "amount": 50}}
    result = trading_session({
        "parameters": RULES, "models": ["a"],
        "events": [
            {"at": at - 9, "subject": "X", "answers": buy},
            {"at": at - 8, "prices": {"X": 0.0}}, {"at": at - 8, "subject": "X", "answers": buy},
            {"at": at - 7, "prices": {"X": None}}, {"at": at - 7, "subject": "X", "answers": buy},
            {"at": at - 6, "prices": {"X": 10}}, {"at": at - 6, "subject": "X", "answers": buy},
            {"at": at + 60, "prices": {"X": 11}}, {"at": at + 60, "snapshot": True},
        ],
    })  # fmt: skip
    assert [set(step.get("refused", ())) for step in result["steps"]] == [{"a"}, {"a"}, {"a"}, set(), set()]
    assert result["steps"][-1]["snapshot"]["a"]["net_pnl"] == pytest.approx(5 - 0.5)
    assert [(row["model"], row["rank"], row["key"]) for row in result["ranking"]] == [
        ("a", 1, pytest.approx(4.5))
    ]


EPOCHS = {"epoch_seconds": 300, "subscription_seconds": DAY, "truth_timeout_seconds": DAY}


def test_a_post_by_a_model_without_an_account_is_above_its_balance():
    posts = [
        {"model": "stranger", "at": E1 - 400, "epoch": E1, "up": True, "stake": 5},
        {"model": "a", "at": E1 - 400, "epoch": E1, "up": True, "stake": 5},
        {"model": "a", "at": E1 - 390, "epoch": E1, "up": True},
    ]
    result = predictoor_epochs({
        "parameters": EPOCHS, "balances": {"a": 10}, "prices": {str(E1 - 300): 1.0, str(E1): 2.0}, "sales": [],
        "rounds": [{"epoch": E1, "resolved_at": E1, "posts": posts}, {"epoch": E1 + 300, "resolved_at": None, "posts": []}],
    })  # fmt: skip
    first, second = result["rounds"]
    assert {(refusal["model"], refusal["why"]) for refusal in first["refused"]} == {
        ("stranger", "not enough balance"), ("a", "not a direction and an amount")
    }  # fmt: skip
    assert (first["balances"], first["payouts"], first["stakes"]) == ({"a": 10}, {"a": 5}, 5)
    assert (second["truth"], second["balances"]) == (None, {"a": 10})


POT = {
    "investment_fraction": 0.5, "inflation_bps": 0, "initial_wealth": 1000, "alpha_short": 0.5, "alpha_long": 0.5,
    "w_short": 0.5, "ewma_weight": 1.0, "horizon": 3,
}  # fmt: skip


def test_a_pot_without_ticks_leaves_each_model_its_initial_wealth():
    inputs = {"parameters": POT, "initial_wealth": {"a": 7}, "warm_up_ticks": 0, "pool_usd": 3.0}
    result = falcon_pot(inputs | {"likelihoods": []})
    assert (result["wealth_per_tick"], result["total"]) == ([], {"a": 7.0})
    assert (result["payouts_micro"], result["retained_micro"]) == ({"a": 0}, 3_000_000)


def test_a_location_that_is_none_stakes_nothing_and_records_may_pass_midnight():
    def norm(loc: float) -> dict[str, Any]:
        return {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": 1}}

    records = [{"time": DAY - 5 + 4 * i, "dove_location": None if i == 1 else 5} for i in range(3)]
    answers = {"a": [norm(5)] * 3, "b": [norm(9)] * 3, "short": []}
    result = falcon_whole({"parameters": POT, "records": records, "answers": answers})
    assert result["wealth_per_tick"][1] == {"a": None, "b": None, "short": None}
    assert result["total"]["a"] > 1400
    assert result["total"]["a"] + result["total"]["b"] == pytest.approx(2000)
    assert result["total"]["short"] == 1000
    assert [row["model"] for row in result["ranking"]] == ["a", "short", "b"]


def synth_case(prices: list[Any]) -> dict[str, Any]:
    density = {"300": [{"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 9}}]}
    return {
        "parameters": {"half_width": {"BTC": 1500}, "num_points": 256, "normalise_pdf": False},
        "round": {"asset": "BTC", "horizon": 300, "steps": [300], "asked": E1, "prices": prices,
                  "answers": {"a": density, "none": None}},
    }  # fmt: skip


def test_prices_may_be_negative_or_in_any_order_and_a_round_without_any_scores_no_answer():
    moved = synth_round(synth_case([[E1 + 300, -95], [E1, -100]]))
    assert moved["crps"]["a"] == pytest.approx(
        synth_round(synth_case([[E1, 100], [E1 + 300, 105]]))["crps"]["a"]
    )
    for nothing in ([], [[E1, None], [E1 + 300, None]]):
        # The model that answered has no score, through nobody's fault. The absent one is at fault and is charged as always.
        assert synth_round(synth_case(nothing))["scores"] == {"a": None, "none": 0.0}


def test_a_parameter_without_scores_leaves_no_anchor_and_scores_of_an_unlisted_parameter_do_not_count():
    result = synth_aggregate({
        "at": E1 // DAY * DAY, "params": ["BTC:3600", "ETH:3600"], "asset_weights": {"BTC": 1.0, "ETH": 1.0},
        "scores": [["BTC:3600", E1 // DAY * DAY - 600, {"a": 1}], ["SOL:3600", E1 // DAY * DAY - 600, {"a": 1}]],
    })  # fmt: skip
    assert result["aggregates"]["a"]["anchor"] == {
        "by_param": {"BTC:3600": 1.0, "ETH:3600": None},
        "all": None,
        "3600": None,
    }
    assert result["ranking"]["all"] == [{"model": "a", "rank": None, "key": None}]
