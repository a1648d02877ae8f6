"""What plays the cases of challenges that ask questions: Metaculus' tournaments, Numinous' events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from docs.contracts import briers, forecasts, metaculus, numinous
from docs.contracts import numinous_reforecast as numinous_reforecast_rules
from pydantic import ValidationError
from tests.oracles.node import PUBKEY, Node, missing
from tests.oracles.reading import Inputs, as_json, board, field_of, number, ranking
from tests.streams.build import T0

from coordinator.streams.contract.payout_amounts import frac64_shares, money

MICRO, DAY_MS = 1_000_000, 86_400_000
FAILED, ABSENT = missing("failed", "model"), missing("absent", "model")


def metaculus_tournament(inputs: Inputs) -> dict[str, Any]:
    """Questions with standing forecasts to scores, sums and money."""
    rules = inputs["parameters"]
    node = Node(metaculus.contract(PUBKEY, rules), hours=24)
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
    refused = {
        model: [why for one in said if (why := _refusal(one, told, rules))]
        for model, said in told["forecasts"].items()
    }
    said = {model: _answers(of, told, rules) for model, of in told["forecasts"].items()}
    outcome = told.get("outcome")
    truth = {"outcome": outcome, "scheduled": told["scheduled"], "weight": told["weight"]}
    scored = node.question(
        None if outcome is None else truth,
        {model: of for model, of in said.items() if of},
        missed={model: ABSENT for model, of in said.items() if not of},
        payload={"options": [f"option {i}" for i in range(told["options"])]},
        times=(round(told["open"] * 1000), round(told["closed"] * 1000)),
    )
    columns = {
        name: field_of(scored, name, node.contract.score_decimals)
        for name in ("peer", "baseline", "coverage")
    }
    return {
        "refused": {model: reasons for model, reasons in refused.items() if reasons},
        "scores": {
            model: {name: of[model] for name, of in columns.items()}
            | {"coverage": columns["coverage"][model] or 0.0}
            for model in told["forecasts"]
        },
    }


def _refusal(one: Inputs, told: Inputs, rules: Inputs) -> str:
    """Why a forecast is as none: by the question, by its type, by the rules, or since it came after the close."""
    p = one["p"]
    if not isinstance(p, list) or len(p) != told["options"]:
        return "not a probability for each outcome"
    try:
        forecasts.Forecast.model_validate({"p": p}, strict=True)
    except ValidationError as error:
        return str(error.errors()[0].get("ctx", {}).get("error", "not a probability for each outcome"))
    late = "after the close" if one["start"] >= told["closed"] else ""
    return forecasts.refusal(p, told["options"], rules) or late


def _answers(said: list[Any], told: Inputs, rules: Inputs) -> list[tuple[int, Any]]:
    """A model's forecasts before the close, and a withdrawal where one ended before another replaced it."""
    answers: list[tuple[int, Any]] = []
    for i, one in enumerate(said):
        if one["start"] >= told["closed"]:
            continue
        answers.append((round(one["start"] * 1000), {"p": as_json(one["p"])}))
        replaced = [later["start"] for later in said[i + 1 :] if not _refusal(later, told, rules)]
        if (
            one["end"] is not None
            and not _refusal(one, told, rules)
            and one["end"] < min(replaced, default=math.inf)
        ):
            answers.append((round(one["end"] * 1000), {"p": None}))
    return answers


def numinous_event(inputs: Inputs) -> dict[str, Any]:
    """Predictions by day to an event's score."""
    node = Node(numinous.contract(PUBKEY), hours=24)
    days, models = inputs["days"], inputs["models"]
    said = {model: _by_day(of["predictions"], days) for model, of in models.items()}
    node.question(
        {
            "outcome": inputs["outcome"],
            "registered": [model for model, of in models.items() if of.get("registered", 0) > 0],
        },
        said,
        missed={model: FAILED if of["failed"] else ABSENT for model, of in models.items() if not said[model]},
        scope_key="global_brier",
        times=(T0, T0 + days * DAY_MS),
    )
    return {"scores": {model: (node.states[model].get("global_brier") or [None])[-1] for model in models}}


def _by_day(predictions: Inputs, days: int) -> list[tuple[int, Any]]:
    """What stood on each day, as answers of that day; a day without one withdraws what stood."""
    answers: list[tuple[int, Any]] = []
    for day in range(days):
        p = predictions.get(str(day))
        valid = type(p) in (int, float) and math.isfinite(p)
        if valid or answers:
            answers.append((T0 + day * DAY_MS, {"prediction": p if valid else None}))
    return answers


def numinous_board(inputs: Inputs) -> dict[str, Any]:
    """Scores by pool, oldest first, to means, counts and a ranking."""
    pools, models = inputs["pools"], inputs["models"]
    node = Node(numinous.contract(PUBKEY, pools=pools), hours=24)
    for name in pools:
        lists = {model: of.get(name) or [] for model, of in models.items()}
        for i in range(max(map(len, lists.values()), default=0)):
            marks = {model: of[i] for model, of in lists.items() if i < len(of)}
            node.question(
                {"marks": marks}, {one: [(T0, {"prediction": 0.5})] for one in marks}, scope_key=name
            )
    data = node.close()
    ranked = ranking(data, node.contract.score_decimals)
    listed = {row["model"] for row in ranked}
    return {
        "aggregates": {model: briers.means(node.states.get(model, {}), pools) for model in models},
        "ranking": ranked
        + [{"model": one, "rank": None, "key": None} for one in models if one not in listed],
    }


def numinous_reforecast(inputs: Inputs) -> dict[str, Any]:
    """A day's market and forecasts to means, coverage, and what is paid."""
    contract = numinous_reforecast_rules.contract(PUBKEY, numinous_reforecast_rules.RULES)
    of_day: dict[int, dict[str, dict[str, float]]] = {}
    for model, event, day, p in inputs["forecasts"]:
        of_day.setdefault(day, {}).setdefault(model, {})[event] = p
    days = range(min(of_day, default=inputs["today"] - 1), inputs["today"])
    node = Node(contract, hours=24)
    truth = {"prices": inputs["market"], "resolved": inputs["resolved"], "activated": inputs["activated"]}
    forecasts: dict[str, list[Any]] = {model: [] for model in inputs["activated"]}
    for i, day in enumerate(days):
        said = {model: [(T0, {"forecasts": of})] for model, of in of_day.get(day, {}).items()}
        missed = {model: ABSENT for model in forecasts if model not in said}
        at = T0 + i * DAY_MS + DAY_MS // 2
        node.question(truth | {"today": day + 1}, said, missed=missed, at=at)
    data = node.close(T0 + len(days) * DAY_MS)
    shares, retained = frac64_shares(data.payout.pools if data.payout else [])
    amounts = {data.ranking[i].model_id: share for i, share in shares.items()}
    place = min(numinous_reforecast_rules.RULES["place"], len(data.ranking)) - 1
    listed = ranking(data, contract.score_decimals)
    return {
        "aggregates": {
            model: {name: node.states[model][name] for name in ("mean", "coverage", "gated")}
            for model in forecasts
        },
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
