"""Players of the cases of challenges with state: Falcon's pot, Predictoor's balances, trading."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from docs.contracts import books, falcon, predictoor, trading
from tests.oracles.node import PUBKEY, Node, asked_at_once, missing, period_around, ticks
from tests.oracles.reading import Inputs, as_json, field_of, is_finite_number, ranking, shares_of

from coordinator.streams import events as ev
from coordinator.streams.contract import RawInput
from coordinator.streams.contract.payout_amounts import money
from coordinator.streams.contract.terms import MS

MICRO = 1_000_000
ANY_SUBJECT = "BTC"
"""The subject of a session without events."""
BASE_S = 1_678_406_400
"""The start of a session whose times are seconds from its own beginning."""


# --- falcon ----------------------------------------------------------------------------------------------


def falcon_pot(inputs: Inputs) -> dict[str, Any]:
    """From likelihoods per tick to wealth and the week's money."""
    rounds = [
        {model: {"density": _of(likelihood)} for model, likelihood in tick.items()}
        for tick in inputs["likelihoods"]
    ]
    records = [ticks([(BASE_S + i, 0.0)]) for i in range(len(rounds))]
    result, data = _falcon(inputs | {"parameters": inputs["parameters"] | {"horizon": 0}}, rounds, records)
    paid, retained = money(data.payout.pools if data.payout else [], round(inputs["pool_usd"] * MICRO))
    amounts = {data.ranking[i].model_id: amount for i, amount in paid.items()}
    models = sorted(result["total"])
    return result | {
        "payouts_micro": {model: amounts.get(model, 0) for model in models}, "retained_micro": retained
    }  # fmt: skip


def _of(likelihood: float | None) -> dict[str, Any] | None:
    """A density with this likelihood at 0."""
    if likelihood is None or not math.isfinite(likelihood):
        return None
    loc, scale = (0.0, 1 / (likelihood * math.sqrt(2 * math.pi))) if likelihood else (1e6, 1.0)
    return {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}


def falcon_whole(inputs: Inputs) -> dict[str, Any]:
    """From records and densities to likelihoods and wealth."""
    told_records = inputs["records"]
    base = BASE_S - int(told_records[0]["time"]) if told_records else BASE_S
    records = [ticks([(base + record["time"], record["dove_location"])]) for record in told_records]
    answers = as_json(inputs["answers"])
    rounds = [
        {
            model: {"density": answers_of_model[i] if i < len(answers_of_model) else None}
            for model, answers_of_model in answers.items()
        }
        for i in range(len(records))
    ]
    result, _ = _falcon(inputs, rounds, records)
    return result | {"likelihoods": result.pop("seen")}


def _falcon(
    inputs: Inputs, rounds: list[Any], records: list[Any]
) -> tuple[dict[str, Any], ev.CheckpointData]:
    rules = inputs["parameters"] | {"warm_up_ticks": inputs.get("warm_up_ticks", 0)}
    initial_wealth = inputs.get("initial_wealth") or {}
    contract = asked_at_once(falcon.contract(PUBKEY, rules, initial_wealth), "tick")
    times = [truth[0].at // MS for truth in records] or [BASE_S]
    node = Node(contract, **period_around(min(times), max(times)))
    wealth, seen = [], []
    for answers_by_model, truth in zip(rounds, records, strict=True):
        (scored,) = node.round(truth, {"tick": answers_by_model}, at=truth[0].at).values()
        wealth.append(field_of(scored, "wealth", contract.score_decimals))
        seen.append(field_of(scored, "likelihood", contract.score_decimals))
    data = node.close()
    start = float(rules["initial_wealth"])
    models = dict.fromkeys(
        [
            *(model for answers_by_model in rounds for model in answers_by_model),
            *inputs.get("answers", {}),
            *initial_wealth,
        ]
    )
    fresh = {model: {"wealth": initial_wealth.get(model, start), "realised": 0.0} for model in models}
    state = {
        model: {name: model_state.get(name) for name in ("wealth", "realised", "short", "long")}
        for model, model_state in (fresh | node.states).items()
    }
    total = {model: model_state["wealth"] + model_state["realised"] for model, model_state in state.items()}
    result = {
        "wealth_per_tick": wealth, "state": state, "total": total, "ranking": ranking(data, contract.score_decimals)
    }  # fmt: skip
    return result | ({"seen": seen} if "answers" in inputs else {}), data


# --- predictoor ------------------------------------------------------------------------------------------


def predictoor_epochs(inputs: Inputs) -> dict[str, Any]:
    """From posts with stakes to payouts and balances."""
    balances, rules = inputs["balances"], inputs["parameters"]
    epochs = inputs["rounds"]
    strangers = {post["model"] for round_inputs in epochs for post in round_inputs["posts"]} - balances.keys()
    held = balances | dict.fromkeys(strangers, 0)
    contract = asked_at_once(predictoor.contract(PUBKEY, rules, held), "epoch")
    last = max((round_inputs["epoch"] for round_inputs in epochs), default=0)
    node = Node(contract, hours=24, end_ms=(last // 86_400 + 1) * 86_400 * MS)
    rounds = []
    for round_inputs in epochs:
        epoch = round_inputs["epoch"]
        # A model without a balance has one of 0: its post is refused as any post above the balance is.
        posters = dict.fromkeys([*balances, *(post["model"] for post in round_inputs["posts"])])
        answers_by_model: dict[str, Any] = {model: {"posts": []} for model in posters}
        for post in round_inputs["posts"]:
            answers_by_model[post["model"]]["posts"].append(
                as_json({name: post.get(name) for name in ("at", "epoch", "up", "stake")})
            )
        before, after = (_close(inputs["prices"], at) for at in (epoch - rules["epoch_seconds"], epoch))
        after.values.update(epoch=epoch)
        if round_inputs.get("resolved_at") is not None:
            after.values.update(resolved_at=round_inputs["resolved_at"])
        sales = [_sale(at, amount) for at, amount in inputs.get("sales", [])]
        (_scored,) = node.round([before, *sales, after], {"epoch": answers_by_model}, at=epoch * MS).values()
        shared, states = node.shared, node.states
        order = [post["model"] for post in round_inputs["posts"]]
        refused = [
            {"model": model, "at": at, "why": reason}
            for model in posters
            for at, reason in states[model]["refused"]
        ]
        rounds.append(
            {
                "refused": sorted(refused, key=lambda post: post["at"]),
                "stakes_up": shared["stakes_up"],
                "stakes": shared["stakes"],
                "truth": shared["truth"],
                "revenue": shared["revenue"],
                "payouts": {
                    model: states[model]["payout"]
                    for model in dict.fromkeys(order)
                    if states[model]["posted"]
                },
                "slashed_to_collector": shared["slashed"],
                "undistributed": shared["left"],
                "balances": {model: states[model]["balance"] for model in balances},
            }
        )
    data = node.close()
    gain = {
        model: node.states.get(model, {"balance": start})["balance"] - start
        for model, start in balances.items()
    }
    shared = node.shared or {"collector": 0, "undistributed": 0}
    return {
        "rounds": rounds,
        "aggregates": {"gain": gain},
        "ranking": ranking(data, 0),
        "collector": shared["collector"],
        "undistributed": shared["undistributed"],
    }


def _close(prices: Mapping[str, float | None], at: int) -> RawInput:
    """The record of the close at a time, without a price where the case has none."""
    (record,) = ticks([(at, prices.get(str(at)))])
    return record


def _sale(at: int, amount: int) -> RawInput:
    (record,) = ticks([(at, None)])
    record.values.update(sale=amount)
    return record


# --- trading ---------------------------------------------------------------------------------------------


def trading_session(inputs: Inputs) -> dict[str, Any]:
    """From marks, answers and snapshots in time order to positions, profit and shares."""
    contract = asked_at_once(trading.contract(PUBKEY, inputs["parameters"]), "order", "snapshot")
    marked = {name for event in inputs["events"] for name in event.get("prices") or ()}
    subjects = sorted(marked | {event["subject"] for event in inputs["events"] if "subject" in event})
    subjects = subjects or [ANY_SUBJECT]
    end = max((event["at"] for event in inputs["events"]), default=0)
    node = Node(contract, subjects, hours=24, end_ms=(end // 86_400 + 1) * 86_400 * MS)
    marks: list[RawInput] = []
    steps: list[dict[str, Any]] = []
    for i, event in enumerate(inputs["events"]):
        at = event["at"]
        if "prices" in event:
            marks.append(_mark(at, event["prices"]))
            continue
        snapshot = "snapshot" in event
        raw_answers = {key: {"amount": 0} for key in inputs["models"]} if snapshot else event["answers"] or {}
        answers_by_model = {
            model: missing("absent", "model") if raw_answers.get(model) is None else raw_answers[model]
            for model in inputs["models"]
        }
        scope, subject = ("snapshot", subjects[0]) if snapshot else ("order", event["subject"])
        # Rounds of the same second get different milliseconds, because a node's rounds are never at the same time.
        (scored,) = node.round(
            [*marks, _mark(at, {})], {scope: answers_by_model}, subject, at=at * MS + i % 1000
        ).values()
        marks = []
        if snapshot:
            steps.append(
                {"at": at, "snapshot": {model: _book(node.states[model]) for model in inputs["models"]}}
            )
        else:
            refused = {entry.model_id: entry.reason for entry in scored.entries() if entry.status != "SCORED"}
            steps.append(
                {
                    "at": at,
                    "refused": {
                        model: reason for model, reason in refused.items() if reason != trading.NEVER
                    },
                }
            )
    data = node.close()
    return {
        "steps": steps,
        "aggregates": {
            model: books.metrics(node.states.get(model) or books.new_book()) for model in inputs["models"]
        },
        "ranking": ranking(data, contract.score_decimals),
        "payouts_frac64": shares_of(data),
    }


def _mark(at: int, prices: Mapping[str, float | None] | None) -> RawInput:
    (record,) = ticks([(at, None)])
    record.values.update({name: price for name, price in (prices or {}).items() if is_finite_number(price)})
    return record


def _book(state: Inputs) -> dict[str, Any]:
    names = ("net_pnl", "unrealised", "realised", "fees", "carry")
    positions = {
        name: {"size": position["size"], "entry": position["entry"]}
        for name, position in state["positions"].items()
    }
    return {name: state[name] for name in names} | {"positions": positions}


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("falcon", "pot"): falcon_pot,
    ("falcon", "whole"): falcon_whole,
    ("predictoor", "epochs"): predictoor_epochs,
    ("trading", "session"): trading_session,
}
"""(challenge, kind of case) -> its player."""
