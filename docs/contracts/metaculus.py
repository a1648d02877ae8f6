"""Metaculus: forecasts stand until they are replaced, withdrawn or closed; scores are over the time that they stood.

The truth has the question's times in seconds, how many options it has, which came true, and its weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from docs.contracts.forecasts import Forecasts, Question, peers, refusal, standing

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    PredictionScope,
    ScheduledPrediction,
    ScoreResult,
    in_proportion,
)

RULES = {"prize_pool_usd": 10_000.0, "minimum_prize_usd": 50.0, "p_min": 0.001, "p_max": 0.999}
COVERAGE_MIN, DAY_SECONDS = 30, 86_400
TIED_DECIMALS = 9
"""Who agrees to so many is tied."""
TOTAL = AggregationWindow(name="total", hours=365 * 24, rule="sum")


class Score(ScoreResult):
    """The value is peer * weight; baseline is against equal chances, coverage the share of the time (0..1).

    Coverage is recorded in permille as well: with three digits more, many of them can be summed.
    """

    peer: float
    baseline: float
    coverage: float
    coverage_permille: float
    weight: float


def aggregate(scores: list[Any]) -> dict[str, float]:
    """The period's coverage and the global board's mean, which is over 30 questions at least."""
    coverage = math.fsum(one.coverage_permille / 1000 * one.weight for one in scores)
    return {
        "coverage": coverage,
        "peer_mean": math.fsum(one.value for one in scores) / max(COVERAGE_MIN, coverage),
    }


def contract(pubkey: str | None, rules: Mapping[str, float]) -> CrunchContract:
    """Who is above 0 shares by the square; shares below the least prize are given up from the bottom."""

    def score_round(answers: Any, truth: Question, _context: Any) -> list[Any]:
        stood = {}
        for one in answers:
            told = one.output.forecasts if one.output and truth.outcome is not None else []
            stood[one.model_id] = standing([each for each in told if not refusal(each, truth, rules)], truth)
        whole, peer = truth.scheduled - truth.open, peers(stood)
        found: list[Any] = []
        for model, of in stood.items():
            if not of:
                found.append(NoScore("no forecast stood"))
                continue
            seconds = sum(until - since for since, until, _ in of)
            chances = math.fsum(
                math.log(p) / math.log(truth.options) * (until - since) for since, until, p in of
            )
            mean = peer[model] / whole
            found.append(
                {
                    "value": round(mean * truth.weight, TIED_DECIMALS),
                    "peer": mean,
                    "weight": truth.weight,
                    "baseline": 100 * (chances + seconds) / whole,
                    "coverage": seconds / whole,
                    "coverage_permille": 1000 * seconds / whole,
                }
            )
        return found

    least = rules["minimum_prize_usd"] / rules["prize_pool_usd"]
    return CrunchContract(
        crunch_pubkey=pubkey, score_decimals=12, output_type=Forecasts, ground_truth_type=Question, score_type=Score,
        score_round=score_round, aggregate_snapshot=aggregate,
        resolve_ground_truth=lambda records: dict(records[-1].values),
        scheduled_predictions=[ScheduledPrediction(
            scope_key="question", scope=PredictionScope(horizon_seconds=DAY_SECONDS), interval_seconds=DAY_SECONDS)],
        aggregation=Aggregation(windows=[TOTAL], ranking_key="total", checkpoint_key="total"),
        payout=Payout(pools=[Pool(name="prizes", rule=in_proportion(power=2, part_min=least))], retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
