"""Numerai: a posted table of ids, an answer between 0 and 1 for each, paid by stake, correlation and contribution.

The question is the table of features, posted each week. The truth comes weeks later and has the targets by id. A
model's stake is the one in the posted table when the first round that asked the model closed. From then on the stake is
the model's state: each round adds what it pays and subtracts what it burns, and a stake that is posted later changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from docs.contracts.gauss import contribution, correlation, gauss_ranked, weighted
from docs.contracts.stake_tables import Answer, Resolved, refusal

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    Payout,
    Pool,
    Questions,
    RoundScores,
    ScoreResult,
    in_proportion,
    stake_payout,
)

RULES = {
    "corr_multiplier": 0.5,
    "mmc_multiplier": 2.0,
    "clip": 0.05,
    "stake_threshold": 72_000.0,
    "max_missing": 0.2,
}


class Score(ScoreResult):
    """The value is corr_multiplier * corr + mmc_multiplier * mmc. `mmc` is None if nobody has a stake."""

    corr: float
    mmc: float | None = None


def contract(pubkey: str | None, rules: Mapping[str, float]) -> CrunchContract:
    """Shares are in proportion to max(score, 0). In addition each stake wins or burns clip(factor * score) of the stake
    at risk.
    """

    def score_round(answers: Any, truth: Resolved, context: Any) -> RoundScores:
        numbers_of = {answer.model_id: answer.output.root for answer in answers if answer.output is not None}
        failed = {
            model: why for model, numbers in numbers_of.items() if (why := refusal(numbers, truth.target))
        }
        posted = {model: amount for model, amount in context.stakes.items() if model in answers.models}
        stakes = {model: {"stake": amount} for model, amount in posted.items()} | dict(context.states)
        with_target = [row_id for row_id, value in truth.target.items() if value is not None]
        targets = [truth.target[row_id] for row_id in with_target]
        valid = numbers_of.keys() - failed.keys()
        ranked = {
            model: gauss_ranked([numbers_of[model][row_id] for row_id in with_target]) for model in valid
        }
        staked = (valid & stakes.keys()) - set(truth.late)
        at_risk = {model: stakes[model]["stake"] if model in staked else 0.0 for model in valid}
        meta = weighted(ranked, at_risk)
        factor = None if meta is None else min(1.0, rules["stake_threshold"] / math.fsum(at_risk.values()))
        too_few = len(with_target) < (1 - rules["max_missing"]) * len(truth.target)
        scores: dict[str, dict[str, Any]] = {}
        for model, ranks in () if too_few else ranked.items():
            corr, mmc = correlation(ranks, targets), contribution(ranks, meta, targets)
            value = rules["corr_multiplier"] * corr + rules["mmc_multiplier"] * (mmc or 0.0)
            scores[model] = {"corr": corr, "mmc": mmc, "value": value}
        bound, payouts = rules["clip"], {}
        for model, score in scores.items():
            payouts[model] = stake_payout(
                model, at_risk[model], score["value"], factor=factor or 0.0, clip=bound
            )
        return RoundScores(
            [scores.get(model) for model in answers.models],
            failed=failed,
            no_score=dict.fromkeys(valid, "too few targets are known") if too_few else {},
            states={
                model: {"stake": held["stake"] + payouts.get(model, 0.0)} for model, held in stakes.items()
            },
            shared={"payout_factor": factor, "at_risk": at_risk, "payouts": payouts},
        )

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Answer, ground_truth_type=Resolved, score_type=Score, score_round=score_round,
        questions=Questions(), state_scope="all", output_max_bytes=1_000_000, state_max_bytes=65_536,
        aggregation=Aggregation(windows=[AggregationWindow(name="year", hours=365 * 24)], ranking_key="year"),
        payout=Payout(pools=[Pool(name="round", rule=in_proportion())], retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
