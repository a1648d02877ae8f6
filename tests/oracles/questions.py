"""Players of the cases whose challenges ask questions: Metaculus' tournaments, Numinous' events."""

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
    """From questions with standing forecasts to scores, sums and money."""
    rules = inputs["parameters"]
    node = Node(metaculus.contract(PUBKEY, rules), hours=24)
    decimals = node.contract.score_decimals
    questions = [_question(node, question, rules) for question in inputs["questions"]]
    models = sorted({model for question in inputs["questions"] for model in question["forecasts"]})
    data = node.close()
    units = {model: node.windows.get(model, {}).get("total") for model in models}
    sums = {model: number(sum_units, decimals) for model, sum_units in units.items()}
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


def _question(node: Node, question: Inputs, rules: Inputs) -> dict[str, Any]:
    refused = {
        model: [reason for forecast in forecasts_of_model if (reason := _refusal(forecast, question, rules))]
        for model, forecasts_of_model in question["forecasts"].items()
    }
    answers_by_model = {
        model: _answers(forecasts_of_model, question, rules)
        for model, forecasts_of_model in question["forecasts"].items()
    }
    outcome = question.get("outcome")
    truth = {"outcome": outcome, "scheduled": question["scheduled"], "weight": question["weight"]}
    scored = node.question(
        None if outcome is None else truth,
        {model: answers for model, answers in answers_by_model.items() if answers},
        missed={model: ABSENT for model, answers in answers_by_model.items() if not answers},
        payload={"options": [f"option {i}" for i in range(question["options"])]},
        times=(round(question["open"] * 1000), round(question["closed"] * 1000)),
    )
    columns = {
        name: field_of(scored, name, node.contract.score_decimals)
        for name in ("peer", "baseline", "coverage")
    }
    return {
        "refused": {model: reasons for model, reasons in refused.items() if reasons},
        "scores": {
            model: {name: column[model] for name, column in columns.items()}
            | {"coverage": columns["coverage"][model] or 0.0}
            for model in question["forecasts"]
        },
    }


def _refusal(forecast: Inputs, question: Inputs, rules: Inputs) -> str:
    """Why a forecast does not count: by the question, by its type, by the rules, or because it came after the close."""
    probabilities = forecast["p"]
    if not isinstance(probabilities, list) or len(probabilities) != question["options"]:
        return "not a probability for each outcome"
    try:
        forecasts.Forecast.model_validate({"p": probabilities}, strict=True)
    except ValidationError as error:
        return str(error.errors()[0].get("ctx", {}).get("error", "not a probability for each outcome"))
    late = "after the close" if forecast["start"] >= question["closed"] else ""
    return forecasts.refusal(probabilities, question["options"], rules) or late


def _answers(forecasts_of_model: list[Any], question: Inputs, rules: Inputs) -> list[tuple[int, Any]]:
    """A model's forecasts before the close, and a withdrawal where a forecast ended before the next replaced it."""
    answers: list[tuple[int, Any]] = []
    for i, forecast in enumerate(forecasts_of_model):
        if forecast["start"] >= question["closed"]:
            continue
        answers.append((round(forecast["start"] * 1000), {"p": as_json(forecast["p"])}))
        replaced = [
            later["start"] for later in forecasts_of_model[i + 1 :] if not _refusal(later, question, rules)
        ]
        if (
            forecast["end"] is not None
            and not _refusal(forecast, question, rules)
            and forecast["end"] < min(replaced, default=math.inf)
        ):
            answers.append((round(forecast["end"] * 1000), {"p": None}))
    return answers


def numinous_event(inputs: Inputs) -> dict[str, Any]:
    """From predictions by day to an event's score."""
    node = Node(numinous.contract(PUBKEY), hours=24)
    days, models = inputs["days"], inputs["models"]
    answers_by_model = {
        model: _by_day(model_inputs["predictions"], days) for model, model_inputs in models.items()
    }
    node.question(
        {
            "outcome": inputs["outcome"],
            "registered": [
                model for model, model_inputs in models.items() if model_inputs.get("registered", 0) > 0
            ],
        },
        answers_by_model,
        missed={
            model: FAILED if model_inputs["failed"] else ABSENT
            for model, model_inputs in models.items()
            if not answers_by_model[model]
        },
        scope_key="global_brier",
        times=(T0, T0 + days * DAY_MS),
    )
    return {"scores": {model: (node.states[model].get("global_brier") or [None])[-1] for model in models}}


def _by_day(predictions: Inputs, days: int) -> list[tuple[int, Any]]:
    """Each day's standing prediction as an answer of that day; a day without a prediction withdraws the previous one."""
    answers: list[tuple[int, Any]] = []
    for day in range(days):
        probability = predictions.get(str(day))
        valid = type(probability) in (int, float) and math.isfinite(probability)
        if valid or answers:
            answers.append((T0 + day * DAY_MS, {"prediction": probability if valid else None}))
    return answers


def numinous_board(inputs: Inputs) -> dict[str, Any]:
    """From scores by pool, oldest first, to means, counts and a ranking."""
    pools, models = inputs["pools"], inputs["models"]
    node = Node(numinous.contract(PUBKEY, pools=pools), hours=24)
    for name in pools:
        lists = {model: model_inputs.get(name) or [] for model, model_inputs in models.items()}
        for i in range(max(map(len, lists.values()), default=0)):
            marks = {
                model: marks_of_model[i] for model, marks_of_model in lists.items() if i < len(marks_of_model)
            }
            node.question(
                {"marks": marks}, {model: [(T0, {"prediction": 0.5})] for model in marks}, scope_key=name
            )
    data = node.close()
    ranked = ranking(data, node.contract.score_decimals)
    listed = {row["model"] for row in ranked}
    return {
        "aggregates": {model: briers.means(node.states.get(model, {}), pools) for model in models},
        "ranking": ranked
        + [{"model": model, "rank": None, "key": None} for model in models if model not in listed],
    }


def numinous_reforecast(inputs: Inputs) -> dict[str, Any]:
    """From each day's market and forecasts to means, coverage and payouts."""
    contract = numinous_reforecast_rules.contract(PUBKEY, numinous_reforecast_rules.RULES)
    of_day: dict[int, dict[str, dict[str, float]]] = {}
    for model, event, day, probability in inputs["forecasts"]:
        of_day.setdefault(day, {}).setdefault(model, {})[event] = probability
    days = range(min(of_day, default=inputs["today"] - 1), inputs["today"])
    node = Node(contract, hours=24)
    truth = {"prices": inputs["market"], "resolved": inputs["resolved"], "activated": inputs["activated"]}
    forecasts: dict[str, list[Any]] = {model: [] for model in inputs["activated"]}
    for i, day in enumerate(days):
        answers_by_model = {
            model: [(T0, {"forecasts": probabilities})]
            for model, probabilities in of_day.get(day, {}).items()
        }
        missed = {model: ABSENT for model in forecasts if model not in answers_by_model}
        at = T0 + i * DAY_MS + DAY_MS // 2
        node.question(truth | {"today": day + 1}, answers_by_model, missed=missed, at=at)
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
"""(challenge, kind of case) -> its player."""
