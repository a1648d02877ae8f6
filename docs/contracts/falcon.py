"""Falcon: a likelihood pot. Each tick takes a stake of each model's wealth and divides the stakes by smoothed
likelihood.

The state of a model is its wealth, its averages, and the answers that are not old enough to be scored yet.
"""

from __future__ import annotations

from typing import Any

from docs.contracts.pot import likelihood, share_out
from pydantic import BaseModel, Field

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    Payout,
    Pool,
    RoundScores,
    ScoreResult,
    in_proportion,
)

RULES = {
    "horizon": 3, "initial_wealth": 1000, "alpha_short": 0.003, "alpha_long": 1 / 20_000, "w_short": 0.5,
    "ewma_weight": 1.0, "investment_fraction": 0.0001, "inflation_bps": 1, "warm_up_ticks": 0,
}  # fmt: skip
RICH, WITHDRAWN = 2000, 0.1
NORM, WIDE = (
    {"type": "builtin", "name": "norm", "params": {"loc": 20_100.0, "scale": scale}}
    for scale in (500.0, 5000.0)
)
LATEST = AggregationWindow(name="total", rule="latest")


class Density(BaseModel):
    """A density of the location some seconds later; None gives no answer."""

    density: Any = Field(default=None, examples=[NORM, WIDE])


class Location(BaseModel):
    """Where the dove is, at a time in seconds."""

    at: float
    location: float


class Wealth(ScoreResult):
    """`wealth` is at stake, `realised` has been withdrawn, and `value` is their sum."""

    wealth: float = 0.0
    realised: float = 0.0
    likelihood: float | None = None


def resolve(records: list[Any]) -> dict[str, Any]:
    """The newest location of the dove. With a feed of prices the price is the location."""
    values = records[-1].values
    return {"at": records[-1].at / 1000, "location": values.get("price", values.get("close"))}


def contract(
    pubkey: str | None, rules: dict[str, Any], wealth: dict[str, float] | None = None
) -> CrunchContract:
    """A tick: averages, stakes, inflation, shares, withdrawal. A tick of the warm-up: only averages."""

    def score_round(answers: Any, truth: Location, context: Any) -> RoundScores:
        states = {
            model: context.states.get(model)
            or {"wealth": (wealth or {}).get(model, float(rules["initial_wealth"])), "realised": 0.0}
            for model in answers.models
        }
        seen = {
            answer.model_id: likelihood(states[answer.model_id], answer.output, truth, rules["horizon"])
            for answer in answers
        }
        playing = {model: density for model, density in seen.items() if density is not None}
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
        resolve_ground_truth=resolve, score_round=score_round, absence_policy="scored", state_max_bytes=65_536,
        aggregate_snapshot=lambda scores: {"week": scores[-1].realised},
        aggregation=Aggregation(windows=[LATEST], ranking_key="total", checkpoint_key="total"),
        payout=Payout(pools=[Pool(name="week", key="week", rule=in_proportion())], retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES | {"horizon": 0})
"""On a grid the scope's horizon is the 3 s, for which the node waits. So an answer counts in its own round."""
