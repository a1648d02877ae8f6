"""Predictoor as a contract: stakes on up or down; who is right shares all stakes and the revenue. Integers throughout."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import Aggregation, CrunchContract, RoundScores


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


def accepted(
    posts: list[dict[str, Any]], epoch: int, seconds: int, balance: int
) -> tuple[dict[str, Any], list[Any]]:
    """(the post that counts, [(when, why) of those refused])."""
    held: dict[str, Any] = {"up": None, "stake": 0}
    refused = []
    for post in posts:
        stake, up, why = post.get("stake"), post.get("up"), ""
        if post.get("epoch") != epoch:
            why = "no epoch"
        elif type(up) is not bool or type(stake) is not int or stake < 0:
            why = "not a direction and an amount"
        elif post["at"] >= epoch - seconds:
            why = "too late"
        elif stake > balance:
            why = "not enough balance"
        if why:
            refused.append([post["at"], why])
        else:
            held = {"up": up, "stake": stake}
    return held, refused


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

    def resolve(records: list[Any]) -> dict[str, Any]:
        values, day = records[-1].values, rules["subscription_seconds"]
        epoch, seconds = int(values["epoch"]), rules["epoch_seconds"]
        late = values["resolved_at"] - epoch > rules["truth_timeout_seconds"]
        before, after = records[0].values["price"], values["price"]
        sales = [(int(one.at // 1000), int(one.values["sale"])) for one in records[1:-1]]
        revenue = sum(
            amount // (day // seconds) for at, amount in sales if 0 <= epoch - at // seconds * seconds < day
        )
        return {"epoch": epoch, "up": None if late or before == after else after > before, "revenue": revenue}

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Posts, ground_truth_type=Epoch, score_type=Gain, score_decimals=0,
        resolve_ground_truth=resolve, score_round=score_round, state_scope="all", absence_policy="scored",
        aggregate_snapshot=lambda scores: {"last": scores[-1].value}, aggregation=Aggregation(checkpoint_key="last"),
    )  # fmt: skip
