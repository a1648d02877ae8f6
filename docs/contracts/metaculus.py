"""Metaculus: a forecast is valid until it is replaced, withdrawn or closed. A score covers the time for which it was
valid.

A question's payload names its `options`. Every hosted model is asked once a day while the question is open, and an
answer may be handed in at any time. The truth says which option came true. If a question was closed early, `scheduled`
says when it should have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from docs.contracts.forecasts import Forecast, Question, Truth, peers, standing

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    Questions,
    ScoreResult,
    in_proportion,
)

RULES = {"prize_pool_usd": 10_000.0, "minimum_prize_usd": 50.0, "p_min": 0.001, "p_max": 0.999}
COVERAGE_MIN = 30
YES_OR_NO = ("yes", "no")
TIED_DECIMALS = 9
"""Models whose scores agree to this number of decimals are tied."""
TOTAL = AggregationWindow(name="total", hours=365 * 24, rule="sum")


class Score(ScoreResult):
    """The value is peer * weight. `baseline` compares with equal chances; `coverage` is the share of the time (0..1).

    Coverage is also recorded in permille. That gives three more digits, so many of them can be summed.
    """

    peer: float
    baseline: float
    coverage: float
    coverage_permille: float
    weight: float


def aggregate(scores: list[Any]) -> dict[str, float]:
    """The coverage of the period, and the mean of the global board, which divides by at least 30 questions."""
    coverage = math.fsum(score.coverage_permille / 1000 * score.weight for score in scores)
    return {
        "coverage": coverage,
        "peer_mean": math.fsum(score.value for score in scores) / max(COVERAGE_MIN, coverage),
    }


def contract(pubkey: str | None, rules: Mapping[str, float]) -> CrunchContract:
    """Scores above 0 are paid by their squares. Shares below the smallest prize are dropped, beginning with the last
    place.
    """

    def score_round(answers: Any, truth: Truth, context: Any) -> list[Any]:
        asked = context.question
        options = asked.payload.get("options", YES_OR_NO)
        closed = asked.closes_at / 1000
        question = Question(
            asked.opens_at / 1000, truth.scheduled or closed, closed, truth.outcome, len(options)
        )
        stood = {
            answer.model_id: standing(answer.output["answers"] if answer.output else [], question, rules)
            for answer in answers
        }
        whole, peer = question.scheduled - question.open, peers(stood)
        scores: list[Any] = []
        for model, of in stood.items():
            if not of:
                scores.append(NoScore("no forecast stood"))
                continue
            seconds = sum(until - since for since, until, _ in of)
            chances = math.fsum(
                math.log(p) / math.log(question.options) * (until - since) for since, until, p in of
            )
            mean = peer[model] / whole
            scores.append(
                {
                    "value": round(mean * truth.weight, TIED_DECIMALS),
                    "peer": mean,
                    "weight": truth.weight,
                    "baseline": 100 * (chances + seconds) / whole,
                    "coverage": seconds / whole,
                    "coverage_permille": 1000 * seconds / whole,
                }
            )
        return scores

    least = rules["minimum_prize_usd"] / rules["prize_pool_usd"]
    return CrunchContract(
        crunch_pubkey=pubkey, score_decimals=12, output_type=Forecast, ground_truth_type=Truth, score_type=Score,
        score_round=score_round, aggregate_snapshot=aggregate,
        questions=Questions(counts="history", ask_again_seconds=86_400),
        aggregation=Aggregation(windows=[TOTAL], ranking_key="total", checkpoint_key="total"),
        payout=Payout(pools=[Pool(name="prizes", rule=in_proportion(power=2, part_min=least))], retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
