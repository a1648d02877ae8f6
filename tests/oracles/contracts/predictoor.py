"""Predictoor as a contract: stakes on up or down; who is right shares all stakes and the revenue. Integers throughout."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import Aggregation, AggregationWindow, CrunchContract, RoundScores
from oracles.contracts.posts import accepted, truth_of_epoch

LAST = AggregationWindow(name="last", rule="latest")


class Posts(BaseModel):
    """[{at, epoch, up, stake}], in order of time; the last accepted one counts."""

    posts: list[dict[str, Any]] = []


class Epoch(BaseModel):
    """Times in seconds. `up` is None where the close is equal or the truth came too late."""

    epoch: int
    up: bool | None
    revenue: int


class Gain(BaseModel):
    value: int


def contract(pubkey: str, rules: dict[str, Any], balances: dict[str, int]) -> CrunchContract:
    """Payout: stake * (all stakes + revenue) // right stakes. All wrong: to the collector. Cancelled: back."""

    def score_round(answers: Any, truth: Epoch, context: Any) -> RoundScores:
        shared = context.shared or {"collector": 0, "undistributed": 0}
        states, held = {}, {}
        for one in answers:
            balance = (context.states.get(one.model_id) or {"balance": balances[one.model_id]})["balance"]
            posts = one.output.posts if one.output else []
            held[one.model_id], refused = accepted(posts, truth.epoch, rules["epoch_seconds"], balance)
            states[one.model_id] = {"balance": balance, "refused": refused, "payout": 0}
        up = sum(one["stake"] for one in held.values() if one["up"])
        stakes = sum(one["stake"] for one in held.values())
        right = up if truth.up else stakes - up
        for model, one in held.items():
            payout = 0
            if truth.up is None:
                payout = one["stake"]
            elif one["stake"] and one["up"] is truth.up:
                payout = one["stake"] * (stakes + truth.revenue) // right
            states[model]["payout"] = payout
            states[model]["posted"] = one["up"] is not None
            states[model]["balance"] += payout - one["stake"]
        slashed = stakes if truth.up is not None and not right else 0
        paid = sum(one["payout"] for one in states.values())
        left = truth.revenue if truth.up is None else stakes - slashed + truth.revenue - paid
        told = {"stakes_up": up, "stakes": stakes, "slashed": slashed, "left": left}
        told |= {"truth": truth.up, "revenue": truth.revenue}
        shared = {
            "collector": shared["collector"] + slashed, "undistributed": shared["undistributed"] + left, **told
        }  # fmt: skip
        scores = [states[model]["balance"] - balances[model] for model in answers.models]
        return RoundScores([{"value": one} for one in scores], states=states, shared=shared)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Posts, ground_truth_type=Epoch, score_type=Gain, score_decimals=0,
        resolve_ground_truth=partial(truth_of_epoch, rules=rules), score_round=score_round, state_scope="all", absence_policy="scored",
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last"),
    )  # fmt: skip
