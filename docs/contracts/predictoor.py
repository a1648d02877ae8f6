"""Predictoor: stakes on up or down in epochs of five minutes. The models that are right divide all stakes and the
revenue.

The state of a model is its balance. The common state is what the collector has and what was not distributed. All are
integers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from docs.contracts.posts import accepted, truth_of_epoch
from pydantic import BaseModel, ConfigDict, Field

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    PredictionScope,
    RoundScores,
    ScheduledPrediction,
    ScoreResult,
)

LAST = AggregationWindow(name="last", rule="latest")
RULES = {"epoch_seconds": 300, "subscription_seconds": 86_400, "truth_timeout_seconds": 86_400}
BALANCE = 1_000_000_000


class Posts(BaseModel):
    """An answer for the epoch; or a list [{at, epoch, up, stake}] in order of time, of which the last accepted one
    counts.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"up": up, "stake": 5_000_000} for up in (True, False)]}
    )
    up: bool | None = None
    stake: int = Field(default=0, ge=0)
    posts: list[dict[str, Any]] = []


class Epoch(BaseModel):
    """Times in seconds. `up` is None if the close did not change, or if the truth came too late."""

    epoch: int
    up: bool | None
    revenue: int


class Gain(ScoreResult):
    """The balance minus the initial balance."""


def contract(pubkey: str | None, rules: dict[str, Any], balances: dict[str, int]) -> CrunchContract:
    """Pays stake * (all stakes + revenue) // right stakes. If all are wrong, the collector gets it. If cancelled,
    stakes return.
    """

    def score_round(answers: Any, truth: Epoch, context: Any) -> RoundScores:
        shared = context.shared or {"collector": 0, "undistributed": 0}
        states, held = {}, {}
        for answer in answers:
            balance = (
                context.states.get(answer.model_id) or {"balance": balances.get(answer.model_id, BALANCE)}
            )["balance"]
            posts = answer.output.posts if answer.output else []
            if answer.output and answer.output.up is not None:
                at = truth.epoch - rules["epoch_seconds"] - 1
                posts = [
                    {"at": at, "epoch": truth.epoch, "up": answer.output.up, "stake": answer.output.stake}
                ]
            held[answer.model_id], refused = accepted(posts, truth.epoch, rules["epoch_seconds"], balance)
            states[answer.model_id] = {"balance": balance, "refused": refused, "payout": 0}
        up = sum(post["stake"] for post in held.values() if post["up"])
        stakes = sum(post["stake"] for post in held.values())
        right = up if truth.up else stakes - up
        for model, post in held.items():
            payout = 0
            if truth.up is None:
                payout = post["stake"]
            elif post["stake"] and post["up"] is truth.up:
                payout = post["stake"] * (stakes + truth.revenue) // right
            states[model]["payout"] = payout
            states[model]["posted"] = post["up"] is not None
            states[model]["balance"] += payout - post["stake"]
        slashed = stakes if truth.up is not None and not right else 0
        paid = sum(state["payout"] for state in states.values())
        left = truth.revenue if truth.up is None else stakes - slashed + truth.revenue - paid
        told = {"stakes_up": up, "stakes": stakes, "slashed": slashed, "left": left}
        told |= {"truth": truth.up, "revenue": truth.revenue}
        shared = {
            "collector": shared["collector"] + slashed, "undistributed": shared["undistributed"] + left, **told
        }  # fmt: skip
        scores = [states[model]["balance"] - balances.get(model, BALANCE) for model in answers.models]
        return RoundScores([{"value": score} for score in scores], states=states, shared=shared)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Posts, ground_truth_type=Epoch, score_type=Gain, score_decimals=0,
        resolve_ground_truth=partial(truth_of_epoch, rules=rules), score_round=score_round, state_scope="all",
        absence_policy="scored", state_max_bytes=65_536,
        scheduled_predictions=[ScheduledPrediction(
            scope_key="epoch", scope=PredictionScope(horizon_seconds=rules["epoch_seconds"]),
            interval_seconds=rules["epoch_seconds"])],
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last"),
    )  # fmt: skip


CONTRACT = contract(None, RULES, {})
