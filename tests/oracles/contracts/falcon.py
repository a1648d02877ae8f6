"""Falcon as a contract: a likelihood pot. Stakes of wealth are shared by smoothed likelihood."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import Aggregation, CrunchContract, Payout, Pool, RoundScores, in_proportion
from oracles.contracts.densities import Refused, leaves, pdf

FAINT, RICH, WITHDRAWN = 1e-12, 2000, 0.1


class Density(BaseModel):
    """A density of the location some seconds on; None skips. Or the likelihood itself, where that is known."""

    density: Any = None
    likelihood: float | None = None


class Location(BaseModel):
    at: float
    location: float


class Wealth(BaseModel):
    value: float
    realised: float
    likelihood: float | None = None


def likelihood(state: dict[str, Any], answer: Any, truth: Location, horizon: float) -> float | None:
    """Of the newest answer that is old enough; the answer given now is kept for later."""
    if answer is not None and answer.likelihood is not None:
        return float(answer.likelihood)
    waiting = state.setdefault("waiting", [])
    if answer is not None:
        waiting.append([truth.at, answer.density])
    old = [one for one in waiting if one[0] <= truth.at - horizon + 1e-9]
    state["waiting"] = old[-1:] + waiting[len(old) :]
    if not old or old[-1][1] is None:
        return None
    try:
        return float(pdf(leaves(old[-1][1]), truth.location))
    except Refused:
        return None


def contract(pubkey: str, rules: dict[str, Any], wealth: dict[str, float] | None = None) -> CrunchContract:
    """In a tick: averages, stakes, inflation, shares, withdrawal."""

    def score_round(answers: Any, truth: Location, context: Any) -> RoundScores:
        states = {
            model: context.states.get(model)
            or {"wealth": (wealth or {}).get(model, float(rules["initial_wealth"])), "realised": 0.0}
            for model in answers.models
        }
        seen = {
            one.model_id: likelihood(states[one.model_id], one.output, truth, rules["horizon"])
            for one in answers
        }
        playing = {model: one for model, one in seen.items() if one is not None}
        weights: dict[str, float] = {}
        for model, one in playing.items():
            state, log = states[model], math.log(max(one, FAINT))
            for name in ("short", "long"):
                alpha = rules[f"alpha_{name}"]
                state[name] = log if state.get(name) is None else (1 - alpha) * state[name] + alpha * log
            blend = rules["w_short"] * state["short"] + (1 - rules["w_short"]) * state["long"]
            weights[model] = blend
        stakes = {model: rules["investment_fraction"] * states[model]["wealth"] for model in playing}
        pot = sum(stakes.values()) * (1 + rules["inflation_bps"] / 10_000)
        smooth, instant = _shares({model: math.exp(one) for model, one in weights.items()}), _shares(playing)
        for model in playing:
            share = rules["ewma_weight"] * smooth[model] + (1 - rules["ewma_weight"]) * instant[model]
            states[model]["wealth"] += pot * share - stakes[model]
        for state in states.values():
            if state["wealth"] > RICH:
                taken = WITHDRAWN * state["wealth"]
                state["wealth"], state["realised"] = state["wealth"] - taken, state["realised"] + taken
        scores = [
            {
                "value": states[model]["wealth"],
                "realised": states[model]["realised"],
                "likelihood": seen[model],
            }
            for model in answers.models
        ]
        return RoundScores(scores, states=states)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Density, ground_truth_type=Location, score_type=Wealth,
        resolve_ground_truth=lambda records: {"at": records[-1].at / 1000, "location": records[-1].values["price"]},
        score_round=score_round, state_max_bytes=65_536, absence_policy="scored", score_decimals=9,
        aggregate_snapshot=lambda scores: {
            "total": scores[-1].value + scores[-1].realised, "week": scores[-1].realised
        },
        aggregation=Aggregation(checkpoint_key="total"),
        payout=Payout(pools=[Pool(name="week", key="week", rule=in_proportion())], retained="prizes_only"),
    )  # fmt: skip


def _shares(of: dict[str, float]) -> dict[str, float]:
    total = sum(of.values())
    return {model: one / total if total else 1 / len(of) for model, one in of.items()}
