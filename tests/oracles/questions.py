"""What plays the cases of challenges that ask questions: Metaculus' tournaments, Numinous' events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docs.contracts import briers, forecasts, metaculus, numinous
from docs.contracts import numinous_reforecast as numinous_reforecast_rules
from tests.oracles.node import PUBKEY, Node, asked_at_once, ticks
from tests.oracles.reading import Inputs, as_json, board, field_of, number, ranking

from coordinator.streams.contract.payout_amounts import frac64_shares, money

MICRO = 1_000_000


def metaculus_tournament(inputs: Inputs) -> dict[str, Any]:
    """Questions with standing forecasts to scores, sums and money."""
    rules = inputs["parameters"]
    node = Node(asked_at_once(metaculus.contract(PUBKEY, rules), "question"), hours=24)
    decimals = node.contract.score_decimals
    questions = [_question(node, told, rules) for told in inputs["questions"]]
    models = sorted({model for told in inputs["questions"] for model in told["forecasts"]})
    data = node.close()
    units = {model: node.windows.get(model, {}).get("total") for model in models}
    sums = {model: number(one, decimals) for model, one in units.items()}
    summary = {model: node.summary.get(model, {}) for model in models}
    paid, retained = money(data.payout.pools if data.payout else [], round(rules["prize_pool_usd"] * MICRO))
    amounts = {data.ranking[i].model_id: amount for i, amount in paid.items()}
    return {
        "questions": questions,
        "aggregates": {
            model: {
                "peer_sum": sums[model],
                "take": max(sums[model] or 0.0, 0.0) ** 2,
                "coverage": number(summary[model].get("coverage", 0), decimals),
                "peer_mean": number(summary[model].get("peer_mean"), decimals),
            }
            for model in models
        },
        "ranking": board(units, decimals=decimals),
        "payouts_micro": {model: amounts.get(model, 0) for model in models},
        "retained_micro": retained,
    }


def _question(node: Node, told: Inputs, rules: Inputs) -> dict[str, Any]:
    (record,) = ticks([(0, 0.0)])
    names = ("open", "scheduled", "closed", "options", "outcome", "weight")
    record.values = {name: told[name] for name in names if told.get(name) is not None}
    truth = forecasts.Question(**record.values)
    answers = {model: {"forecasts": as_json(said)} for model, said in told["forecasts"].items()}
    (scored,) = node.round([record], {"question": answers}).values()
    refused = {
        model: [why for one in said["forecasts"] if (why := forecasts.refusal(one, truth, rules))]
        for model, said in answers.items()
    }
    columns = {
        name: field_of(scored, name, node.contract.score_decimals)
        for name in ("peer", "baseline", "coverage")
    }
    return {
        "refused": {model: reasons for model, reasons in refused.items() if reasons},
        "scores": {
            model: {name: of[model] for name, of in columns.items()}
            | {"coverage": columns["coverage"][model] or 0.0}
            for model in answers
        },
    }


def numinous_event(inputs: Inputs) -> dict[str, Any]:
    """Predictions by day to an event's score."""
    node = Node(asked_at_once(numinous.contract(PUBKEY), "global_brier"), hours=24)
    answers = {model: as_json(said) for model, said in inputs["models"].items()}
    _numinous_round(node, "global_brier", {"days": inputs["days"], "outcome": inputs["outcome"]}, answers)
    return {"scores": {model: (node.states[model].get("global_brier") or [None])[-1] for model in answers}}


def numinous_board(inputs: Inputs) -> dict[str, Any]:
    """Scores by pool, oldest first, to means, counts and a ranking."""
    pools, models = inputs["pools"], inputs["models"]
    node = Node(asked_at_once(numinous.contract(PUBKEY, pools=pools), *pools), hours=24)
    for name in pools:
        lists = {model: of.get(name) or [] for model, of in models.items()}
        for i in range(max(map(len, lists.values()), default=0)):
            marks = {model: of[i] for model, of in lists.items() if i < len(of)}
            _numinous_round(
                node,
                name,
                {f"mark:{model}": one for model, one in marks.items()},
                {model: {"failed": False} for model in marks},
            )
    data = node.close()
    ranked = ranking(data, node.contract.score_decimals)
    listed = {row["model"] for row in ranked}
    return {
        "aggregates": {model: briers.means(node.states.get(model, {}), pools) for model in models},
        "ranking": ranked
        + [{"model": one, "rank": None, "key": None} for one in models if one not in listed],
    }


def _numinous_round(node: Node, scope: str, values: Inputs, answers: Inputs) -> None:
    (record,) = ticks([(0, 0.0)])
    record.values = dict(values)
    node.round([record], {scope: answers})


def numinous_reforecast(inputs: Inputs) -> dict[str, Any]:
    """A day's market and forecasts to means, coverage, and what is paid."""
    contract = asked_at_once(
        numinous_reforecast_rules.contract(PUBKEY, numinous_reforecast_rules.RULES), "day"
    )
    node = Node(contract, hours=24)
    (record,) = ticks([(0, 0.0)])
    record.values = {"today": inputs["today"]}
    record.values |= {
        f"price:{event}:{day}": price for event, of in inputs["market"].items() for day, price in of.items()
    }
    for event, (day, outcome) in inputs["resolved"].items():
        record.values |= {f"resolved:{event}": day, f"outcome:{event}": outcome}
    record.values |= {f"activated:{model}": day for model, day in inputs["activated"].items()}
    forecasts: dict[str, list[Any]] = {model: [] for model in inputs["activated"]}
    for model, *told in inputs["forecasts"]:
        forecasts[model].append(told)
    node.round([record], {"day": {model: {"forecasts": told} for model, told in forecasts.items()}})
    data = node.close()
    shares, retained = frac64_shares(data.payout.pools if data.payout else [])
    amounts = {data.ranking[i].model_id: share for i, share in shares.items()}
    place = min(numinous_reforecast_rules.RULES["place"], len(data.ranking)) - 1
    listed = ranking(data, contract.score_decimals)
    return {
        "aggregates": {model: node.states[model] for model in forecasts},
        "baseline": number(data.ranking[place].key_units) if data.ranking else None,
        "ranking": listed,
        "payouts_frac64": {model: amounts.get(model, 0) for model in forecasts},
        "burnt_frac64": retained,
    }


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("metaculus", "tournament"): metaculus_tournament,
    ("numinous", "event"): numinous_event,
    ("numinous", "board"): numinous_board,
    ("numinous", "reforecast"): numinous_reforecast,
}
"""(challenge, kind of case) -> what plays it."""
