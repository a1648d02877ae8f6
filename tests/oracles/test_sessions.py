"""Challenges with state, played on vectors small enough to be computed by hand."""

from __future__ import annotations

import math

import pytest
from tests.checkout import root_on_path

with root_on_path():
    from tests.oracles.sessions import falcon_pot, falcon_whole, predictoor_epochs, trading_session
    from tests.oracles.synths import subnet_prompt, subnet_window, synth_aggregate, synth_round

POT = {
    "investment_fraction": 0.01, "inflation_bps": 100, "initial_wealth": 1000, "alpha_short": 0.5, "alpha_long": 0.5,
    "w_short": 0.5, "ewma_weight": 1.0, "horizon": 3,
}  # fmt: skip


def norm(loc: float, scale: float) -> dict[str, object]:
    return {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}


def test_a_pot_is_shared_by_likelihood_and_a_model_that_skips_keeps_its_wealth():
    result = falcon_pot(
        {"parameters": POT, "initial_wealth": {"a": 3000.0}, "pool_usd": 10.0,
         "likelihoods": [{"a": 3.0, "b": 1.0, "c": None}]}
    )  # fmt: skip
    # Stakes 30 and 10, a pot of 40.4, shares 3/4 and 1/4; a has more than 2000 and withdraws a tenth.
    assert result["state"]["a"]["realised"] == pytest.approx(0.1 * (3000 - 30 + 30.3))
    assert result["total"]["b"] == pytest.approx(1000 - 10 + 10.1)
    assert result["total"]["c"] == 1000
    assert result["payouts_micro"] == {"a": 10_000_000, "b": 0, "c": 0}
    assert [(row["model"], row["rank"]) for row in result["ranking"]] == [("a", 1), ("b", 2), ("c", 3)]


def test_the_newest_answer_that_is_old_enough_counts_and_a_refused_answer_does_not():
    records = [{"time": float(i), "dove_location": 5.0} for i in range(5)]
    answers = {
        "a": [norm(5, 1), norm(5, 2), *[None] * 3],
        "zero": [norm(5, 0)] * 5,
        "nan": [norm(float("nan"), 1)] * 5,
    }
    result = falcon_whole({"parameters": POT, "records": records, "answers": answers})
    assert [tick["a"] for tick in result["likelihoods"]] == [
        None, None, None, pytest.approx(0.398942280), pytest.approx(0.199471140)
    ]  # fmt: skip
    assert result["total"]["zero"] == result["total"]["nan"] == 1000


def test_models_that_were_right_share_the_stakes_and_the_revenue():
    e = 1_780_000_800
    result = predictoor_epochs({
        "parameters": {"epoch_seconds": 300, "subscription_seconds": 86_400, "truth_timeout_seconds": 100},
        "balances": {"a": 100, "b": 100, "c": 100},
        "prices": {str(e - 300): 1.0, str(e): 2.0, str(e + 300): 3.0},
        "sales": [[e - 86_400, 9999], [e - 600, 288]],
        "rounds": [
            {"epoch": e, "resolved_at": e + 30, "posts": [
                {"model": "a", "at": e - 500, "epoch": e, "up": True, "stake": 30},
                {"model": "b", "at": e - 400, "epoch": e, "up": True, "stake": 20},
                {"model": "b", "at": e - 390, "epoch": e, "up": False, "stake": 101},
                {"model": "c", "at": e - 380, "epoch": e, "up": False, "stake": 10}]},
            {"epoch": e + 300, "resolved_at": e + 500, "posts": [
                {"model": "c", "at": e - 100, "epoch": e + 300, "up": True, "stake": 7}]},
        ],
    })  # fmt: skip
    first, late = result["rounds"]
    assert first["refused"] == [{"model": "b", "at": e - 390, "why": "not enough balance"}]
    assert (first["revenue"], first["payouts"]) == (
        1,
        {"a": 36, "b": 24, "c": 0},
    )  # 61 by 30 : 20, rounded down
    assert (first["undistributed"], late["truth"], late["payouts"]) == (1, None, {"c": 7})
    assert result["aggregates"]["gain"] == {"a": 6, "b": 4, "c": -10}


def test_an_order_is_cut_to_its_limit_and_pays_fee_and_carry():
    rules = {"mode": "order", "trading_fee_pct": 0.01, "spread_pct": 0.0, "carry_annual_pct": 0.365,
             "max_position_size": 100.0, "max_portfolio_size": 1000.0}  # fmt: skip
    at, later = 1_780_000_000, 4320
    result = trading_session({
        "parameters": rules, "models": ["a", "b"],
        "events": [
            {"at": at, "prices": {"X": 10.0}},
            {"at": at, "subject": "X", "answers": {"a": {"action": "buy", "amount": 500.0}, "b": {"action": "buy"}}},
            {"at": at + later, "prices": {"X": 11.0}},
            {"at": at + later, "snapshot": True},
        ],
    })  # fmt: skip
    first, seen = result["steps"]
    assert set(first["refused"]) == {"b"}
    assert seen["snapshot"]["a"]["positions"] == {"X": {"size": 100.0, "entry": 10.0}}
    assert seen["snapshot"]["a"]["net_pnl"] == pytest.approx(10 - 1 - 0.005)
    assert [(row["model"], row["rank"]) for row in result["ranking"]] == [("a", 1), ("b", None)]
    assert result["payouts_frac64"] == {"a": 10**9}


def test_densities_are_scored_within_their_round_and_a_model_without_one_gets_the_worst_score():
    asked = 1_780_041_600
    answers = {
        "near": {"300": [norm(10, 5)]},
        "far": {"300": [norm(900, 5)]},
        "none": None,
        "short": {"300": []},
    }
    result = synth_round({
        "parameters": {"half_width": {"BTC": 1500}, "num_points": 256, "normalise_pdf": False},
        "round": {"asset": "BTC", "horizon": 300, "steps": [300], "asked": asked,
                  "prices": [[asked, 100.0], [asked + 300, 110.0]], "answers": answers},
    })  # fmt: skip
    assert set(result["refused"]) == {"none", "short"}
    assert result["scores"] == {"near": 1.0, "far": 0.0, "none": 0.0, "short": 0.0}
    assert result["crps"]["far"] == pytest.approx(890 / 1500, rel=0.02)


def test_paths_are_scored_against_the_best_and_a_model_without_paths_gets_the_fill():
    start = 1_780_000_020
    answers = {"exact": [start, 60, [100.0, 101.0], [100.0, 101.0]], "off": [start, 60, [100.0, 103.0], [100.0, 103.0]],
               "none": None, "late": [start + 1, 60, [100.0, 101.0], [100.0, 101.0]]}  # fmt: skip
    result = subnet_prompt({
        "rule": "2026-05",
        "prompt": {"start": start, "increment": 60, "length": 60, "simulations": 2, "intervals": {"1min": 60},
                   "vol_blocks": [], "real": [100.0, 101.0], "answers": answers},
    })  # fmt: skip
    assert set(result["refused"]) == {"none", "late"}
    assert result["crps"] == {"exact": 0.0, "off": pytest.approx(200), "none": None, "late": None}
    assert result["scores"] == {
        "exact": 0.0,
        "off": pytest.approx(180),
        "none": pytest.approx(180),
        "late": pytest.approx(180),
    }


def test_windows_hold_the_scores_that_began_inside_them_and_anchors_are_weighted_means_of_means():
    at, day = 1_781_654_400, 86_400
    scores = [
        ["BTC:3600", at - 2 * day, {"a": 0.2, "b": 0.4}],
        ["BTC:3600", at - day, {"a": 0.4, "b": 0.4}],
        ["ETH:3600", at - 3600, {"a": 1.0}],
        ["ETH:3600", at, {"a": 0.0, "b": 1.0}],  # not yet
    ]
    result = synth_aggregate({
        "at": at, "params": ["BTC:3600", "ETH:3600"], "asset_weights": {"BTC": 1.0, "ETH": 3.0}, "scores": scores
    })  # fmt: skip
    assert result["aggregates"]["a"]["recent"] == {
        "by_param": {"BTC:3600": 0.4, "ETH:3600": 1.0}, "all": 0.85, "3600": 0.85
    }  # fmt: skip
    assert result["aggregates"]["a"]["steady"]["all"] == pytest.approx((0.3 + 3 * 1.0) / 4)
    assert result["aggregates"]["b"]["anchor"] == {
        "by_param": {"BTC:3600": 0.4, "ETH:3600": None},
        "all": None,
        "3600": None,
    }
    assert result["ranking"]["3600"] == [
        {"model": "a", "rank": 1, "key": pytest.approx(0.825)}, {"model": "b", "rank": None, "key": None}
    ]  # fmt: skip


def test_competitions_share_by_softmax_and_a_missed_prompt_counts_as_its_worst_score():
    rows = [
        {"time": 1_780_000_000, "asset": "BTC", "scores": {"a": 0.0, "b": 2.0}, "worst": 4.0},
        {"time": 1_780_000_600, "asset": "ETH", "scores": {"a": 0.0}, "worst": 5.0},
    ]
    result = subnet_window({
        "asset_weights": {"BTC": 1.0, "ETH": 0.5},
        "competitions": [{"label": "low", "share": 1.0, "beta": 0.5, "rows": rows}],
    })  # fmt: skip
    assert result["aggregates"]["low"] == {"a": 0.0, "b": 3.0}  # (2 + 0.5 * 5) / 1.5
    share = 1 / (1 + math.exp(-1.5))
    assert result["weights"] == {"a": pytest.approx(share), "b": pytest.approx(1 - share)}
    assert sum(result["payouts_frac64"].values()) == 10**9
