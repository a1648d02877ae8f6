"""Falcon as a contract: a likelihood pot. Stakes of wealth are shared by smoothed likelihood."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    Payout,
    Pool,
    RoundScores,
    in_proportion,
)
from oracles.contracts.pot import likelihood, share_out

RICH, WITHDRAWN = 2000, 0.1
LATEST = AggregationWindow(name="total", rule="latest")


class Density(BaseModel):
    """A density of the location some seconds on; None skips. Or the likelihood itself, where that is known."""

    density: Any = None
    likelihood: float | None = None


class Location(BaseModel):
    at: float
    location: float


class Wealth(BaseModel):
    value: float
    """Active and realised wealth."""
    wealth: float
    realised: float
    likelihood: float | None = None


def contract(pubkey: str, rules: dict[str, Any], wealth: dict[str, float] | None = None) -> CrunchContract:
    """In a tick: averages, stakes, inflation, shares, withdrawal. In the ticks of a warm-up: averages alone."""

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
        warm_up = rules.get("warm_up_ticks", 0)
        ticks = min(warm_up, (context.shared or 0) + 1)
        stake = (context.shared or 0) >= warm_up
        share_out(states, playing, rules, stake=stake)
        for state in states.values():
            if stake and state["wealth"] > RICH:
                taken = WITHDRAWN * state["wealth"]
                state["wealth"], state["realised"] = state["wealth"] - taken, state["realised"] + taken
        scores = [
            {
                "value": states[model]["wealth"] + states[model]["realised"],
                "wealth": states[model]["wealth"],
                "realised": states[model]["realised"],
                "likelihood": seen[model],
            }
            for model in answers.models
        ]
        return RoundScores(scores, states=states, shared=ticks)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Density, ground_truth_type=Location, score_type=Wealth,
        resolve_ground_truth=lambda records: {"at": records[-1].at / 1000, "location": records[-1].values["price"]},
        score_round=score_round, state_max_bytes=65_536, absence_policy="scored", score_decimals=9,
        aggregate_snapshot=lambda scores: {"week": scores[-1].realised},
        aggregation=Aggregation(windows=[LATEST], ranking_key="total", checkpoint_key="total"),
        payout=Payout(pools=[Pool(name="week", key="week", rule=in_proportion())], retained="prizes_only"),
    )  # fmt: skip
