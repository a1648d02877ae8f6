"""Numinous' subnet (rule of 2026-08): a forecast each day for each open event, scored against the market's price.

The truth has today, each event's prices by day, what is resolved, and when each model was activated. Less is better.
"""

from __future__ import annotations

from typing import Any

from docs.contracts.market_prices import Forecasts, Market, judged, resolve

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    PredictionScope,
    RoundScores,
    ScheduledPrediction,
    in_proportion,
)

DAY_SECONDS = 86_400
RULES = {"horizon_days": 7, "coverage_days": 14, "coverage_min": 0.85, "scored_days_min": 3, "place": 21}
LAST = AggregationWindow(name="last", rule="latest")


def contract(pubkey: str | None, rules: dict[str, Any]) -> CrunchContract:
    """The squared distance to the 21st best; nobody above it: burnt."""

    def score_round(answers: Any, truth: Market, _context: Any) -> RoundScores:
        states = {
            one.model_id: judged(one.output.forecasts if one.output else [], truth.activated.get(one.model_id, 0),
                                 truth, rules)
            for one in answers
        }  # fmt: skip
        scores = [
            NoScore(one["gated"]) if one["gated"] else {"value": one["mean"]} for one in states.values()
        ]
        return RoundScores(scores, states=states)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Forecasts, ground_truth_type=Market, score_round=score_round,
        resolve_ground_truth=resolve, state_max_bytes=1024, output_max_bytes=262_144,
        scheduled_predictions=[ScheduledPrediction(
            scope_key="day", scope=PredictionScope(horizon_seconds=DAY_SECONDS), interval_seconds=DAY_SECONDS)],
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last", ranking_direction="asc"),
        payout=Payout(pools=[Pool(name="week", rule=in_proportion(above_place=rules["place"], power=2))],
                      retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
