"""What plays the cases of challenges with state: Falcon's pot, Predictoor's balances, trading."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from docs.contracts import books, falcon, predictoor, trading
from tests.oracles.node import PUBKEY, Node, asked_at_once, missing, period_around, ticks
from tests.oracles.reading import Inputs, as_json, field_of, known, ranking, shares_of

from coordinator.streams import events as ev
from coordinator.streams.contract import RawInput
from coordinator.streams.contract.payout_amounts import money
from coordinator.streams.contract.terms import MS

MICRO = 1_000_000
ANY_SUBJECT = "BTC"
"""What a session is about in which nothing is."""
BASE_S = 1_678_406_400
"""Where a session that counts its own seconds begins."""


# --- falcon ----------------------------------------------------------------------------------------------


def falcon_pot(inputs: Inputs) -> dict[str, Any]:
    """Likelihoods per tick to wealth and the week's money."""
    rounds = [{model: {"density": _of(one)} for model, one in tick.items()} for tick in inputs["likelihoods"]]
    records = [ticks([(BASE_S + i, 0.0)]) for i in range(len(rounds))]
    made, data = _falcon(inputs | {"parameters": inputs["parameters"] | {"horizon": 0}}, rounds, records)
    paid, retained = money(data.payout.pools if data.payout else [], round(inputs["pool_usd"] * MICRO))
    amounts = {data.ranking[i].model_id: amount for i, amount in paid.items()}
    models = sorted(made["total"])
    return made | {
        "payouts_micro": {one: amounts.get(one, 0) for one in models}, "retained_micro": retained
    }  # fmt: skip


def _of(likelihood: float | None) -> dict[str, Any] | None:
    """A density that has this likelihood at 0."""
    if likelihood is None or not math.isfinite(likelihood):
        return None
    loc, scale = (0.0, 1 / (likelihood * math.sqrt(2 * math.pi))) if likelihood else (1e6, 1.0)
    return {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}


def falcon_whole(inputs: Inputs) -> dict[str, Any]:
    """Records and densities to likelihoods and wealth."""
    told = inputs["records"]
    base = BASE_S - int(told[0]["time"]) if told else BASE_S
    records = [ticks([(base + one["time"], one["dove_location"])]) for one in told]
    answers = as_json(inputs["answers"])
    rounds = [
        {model: {"density": said[i] if i < len(said) else None} for model, said in answers.items()}
        for i in range(len(records))
    ]
    made, _ = _falcon(inputs, rounds, records)
    return made | {"likelihoods": made.pop("seen")}


def _falcon(
    inputs: Inputs, rounds: list[Any], records: list[Any]
) -> tuple[dict[str, Any], ev.CheckpointData]:
    rules = inputs["parameters"] | {"warm_up_ticks": inputs.get("warm_up_ticks", 0)}
    given = inputs.get("initial_wealth") or {}
    contract = asked_at_once(falcon.contract(PUBKEY, rules, given), "tick")
    times = [truth[0].at // MS for truth in records] or [BASE_S]
    node = Node(contract, **period_around(min(times), max(times)))
    wealth, seen = [], []
    for said, truth in zip(rounds, records, strict=True):
        (scored,) = node.round(truth, {"tick": said}, at=truth[0].at).values()
        wealth.append(field_of(scored, "wealth", contract.score_decimals))
        seen.append(field_of(scored, "likelihood", contract.score_decimals))
    data = node.close()
    start = float(rules["initial_wealth"])
    models = dict.fromkeys(
        [*(model for said in rounds for model in said), *inputs.get("answers", {}), *given]
    )
    fresh = {model: {"wealth": given.get(model, start), "realised": 0.0} for model in models}
    state = {
        model: {name: one.get(name) for name in ("wealth", "realised", "short", "long")}
        for model, one in (fresh | node.states).items()
    }
    total = {model: one["wealth"] + one["realised"] for model, one in state.items()}
    made = {
        "wealth_per_tick": wealth, "state": state, "total": total, "ranking": ranking(data, contract.score_decimals)
    }  # fmt: skip
    return made | ({"seen": seen} if "answers" in inputs else {}), data


# --- predictoor ------------------------------------------------------------------------------------------


def predictoor_epochs(inputs: Inputs) -> dict[str, Any]:
    """Posts with stakes to payouts and balances."""
    balances, rules = inputs["balances"], inputs["parameters"]
    told = inputs["rounds"]
    strangers = {post["model"] for one in told for post in one["posts"]} - balances.keys()
    held = balances | dict.fromkeys(strangers, 0)
    contract = asked_at_once(predictoor.contract(PUBKEY, rules, held), "epoch")
    last = max((one["epoch"] for one in told), default=0)
    node = Node(contract, hours=24, end_ms=(last // 86_400 + 1) * 86_400 * MS)
    rounds = []
    for one in told:
        epoch = one["epoch"]
        # A post by who has no balance is refused as any other that is beyond it.
        posters = dict.fromkeys([*balances, *(post["model"] for post in one["posts"])])
        said: dict[str, Any] = {model: {"posts": []} for model in posters}
        for post in one["posts"]:
            said[post["model"]]["posts"].append(
                as_json({name: post.get(name) for name in ("at", "epoch", "up", "stake")})
            )
        before, after = (_close(inputs["prices"], at) for at in (epoch - rules["epoch_seconds"], epoch))
        after.values.update(epoch=epoch)
        if one.get("resolved_at") is not None:
            after.values.update(resolved_at=one["resolved_at"])
        sales = [_sale(at, amount) for at, amount in inputs.get("sales", [])]
        (_scored,) = node.round([before, *sales, after], {"epoch": said}, at=epoch * MS).values()
        shared, states = node.shared, node.states
        order = [post["model"] for post in one["posts"]]
        refused = [
            {"model": model, "at": at, "why": why}
            for model in posters
            for at, why in states[model]["refused"]
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
    """The close at a time; without a price where none is known."""
    (record,) = ticks([(at, prices.get(str(at)))])
    return record


def _sale(at: int, amount: int) -> RawInput:
    (record,) = ticks([(at, None)])
    record.values.update(sale=amount)
    return record


# --- trading ---------------------------------------------------------------------------------------------


def trading_session(inputs: Inputs) -> dict[str, Any]:
    """Marks, answers and snapshots in time order to positions, profit and shares."""
    contract = asked_at_once(trading.contract(PUBKEY, inputs["parameters"]), "order", "snapshot")
    marked = {name for one in inputs["events"] for name in one.get("prices") or ()}
    subjects = sorted(marked | {one["subject"] for one in inputs["events"] if "subject" in one})
    subjects = subjects or [ANY_SUBJECT]
    end = max((one["at"] for one in inputs["events"]), default=0)
    node = Node(contract, subjects, hours=24, end_ms=(end // 86_400 + 1) * 86_400 * MS)
    marks: list[RawInput] = []
    steps: list[dict[str, Any]] = []
    for i, one in enumerate(inputs["events"]):
        at = one["at"]
        if "prices" in one:
            marks.append(_mark(at, one["prices"]))
            continue
        snapshot = "snapshot" in one
        given = {key: {"amount": 0} for key in inputs["models"]} if snapshot else one["answers"] or {}
        said = {
            model: missing("absent", "model") if given.get(model) is None else given[model]
            for model in inputs["models"]
        }
        scope, subject = ("snapshot", subjects[0]) if snapshot else ("order", one["subject"])
        # Two rounds at the same second are some milliseconds apart, as they are in time.
        (scored,) = node.round(
            [*marks, _mark(at, {})], {scope: said}, subject, at=at * MS + i % 1000
        ).values()
        marks = []
        if snapshot:
            steps.append(
                {"at": at, "snapshot": {model: _book(node.states[model]) for model in inputs["models"]}}
            )
        else:
            refused = {one.model_id: one.reason for one in scored.entries() if one.status != "SCORED"}
            steps.append(
                {"at": at, "refused": {model: why for model, why in refused.items() if why != trading.NEVER}}
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
    record.values.update({name: price for name, price in (prices or {}).items() if known(price)})
    return record


def _book(state: Inputs) -> dict[str, Any]:
    names = ("net_pnl", "unrealised", "realised", "fees", "carry")
    positions = {
        name: {"size": one["size"], "entry": one["entry"]} for name, one in state["positions"].items()
    }
    return {name: state[name] for name in names} | {"positions": positions}


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("falcon", "pot"): falcon_pot,
    ("falcon", "whole"): falcon_whole,
    ("predictoor", "epochs"): predictoor_epochs,
    ("trading", "session"): trading_session,
}
"""(challenge, kind of case) -> what plays it."""
