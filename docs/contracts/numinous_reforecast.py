"""Numinous' subnet (rule of 2026-08): a forecast each day for each open event, scored against the market's price.

A question is a day. Its payload has the open events with their prices. Its truth comes the day after and has the market
as it is known then. A model's state holds its forecasts of earlier days, so nobody can change them later. Less is
better.
"""

from __future__ import annotations

from typing import Any

from docs.contracts.market_prices import Forecasts, Market, judged, remembered

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    Questions,
    RoundScores,
    in_proportion,
)

RULES = {"horizon_days": 7, "coverage_days": 14, "coverage_min": 0.85, "scored_days_min": 3, "place": 21}
LAST = AggregationWindow(name="last", hours=24, rule="latest")
"""The score of one day. A model that was ranked yesterday and has too little coverage today has no number today."""


def contract(pubkey: str | None, rules: dict[str, Any]) -> CrunchContract:
    """The squared distance to the 21st best. If nobody is better than that, the pay is burnt."""

    def score_round(answers: Any, truth: Market, context: Any) -> RoundScores:
        states = {}
        for answer in answers:
            before = (context.states.get(answer.model_id) or {}).get("said", {})
            forecasts = remembered(before, answer.output.forecasts if answer.output else {}, truth, rules)
            figures = judged(forecasts, truth.activated.get(answer.model_id, 0), truth, rules)
            states[answer.model_id] = {"said": forecasts, **figures}
        scores = [
            NoScore(state["gated"]) if state["gated"] else {"value": state["mean"]}
            for state in states.values()
        ]
        return RoundScores(scores, states=states)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Forecasts, ground_truth_type=Market, score_round=score_round,
        questions=Questions(), state_scope="all", state_max_bytes=65_536, absence_policy="scored",
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last", ranking_direction="asc"),
        payout=Payout(pools=[Pool(name="week", rule=in_proportion(above_place=rules["place"], power=2))],
                      retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
