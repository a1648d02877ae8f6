"""Players of the cases whose challenges post tables of ids: DataCrunch's weeks, Numerai's rounds and seasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docs.contracts import datacrunch, numerai
from tests.oracles.node import PUBKEY, Node, missing
from tests.oracles.reading import Inputs, as_json, board, field_of, number, ranking, refused_in, scores_of
from tests.streams.build import T0

from coordinator.streams import events as ev
from coordinator.streams.contract.payout_amounts import frac64_shares, money
from coordinator.streams.contract.payout_rules import percentiles

MICRO = 1_000_000
DAY_MS = 86_400_000
ABSENT = missing("absent", "model")


def datacrunch_round(inputs: Inputs) -> dict[str, Any]:
    """From a moon's answers and target to refusals, correlations, percentiles and money."""
    rules, moon, target = inputs["parameters"], inputs["round"]["moon"], inputs["round"]["target"]
    contract = datacrunch.contract(PUBKEY, rules)
    node = Node(contract, hours=24)
    scored = node.question({"moon": moon, "target": target}, **_once(inputs["round"]["answers"]))
    data = node.close()
    pool_micro = round(rules["pool_usd"] * MICRO)
    paid, retained = money(data.payout.pools if data.payout else [], pool_micro)
    amounts = {data.ranking[i].model_id: amount for i, amount in paid.items()}
    ranks = percentiles([{"rank": entry.rank} for entry in data.ranking])
    return {
        "refused": _refused(scored),
        "scores": scores_of(scored),
        "percentile_ranks": {
            entry.model_id: float(part) for entry, part in zip(data.ranking, ranks, strict=True)
        },
        "ranking": ranking(data, contract.score_decimals),
        "payouts_micro": {entry.model_id: amounts.get(entry.model_id, 0) for entry in data.ranking},
        "retained_micro": retained,
    }


def numerai_round(inputs: Inputs) -> dict[str, Any]:
    """From a round's answers, stakes and target to scores, stakes won or burnt, and shares."""
    node = _numerai_node(inputs["parameters"])
    played = _numerai_round(node, inputs["round"], T0)
    del played["stakes_after"]
    return played


def numerai_season(inputs: Inputs) -> dict[str, Any]:
    """Rounds a day apart whose stakes carry over. Each is paid by itself; the board covers the year."""
    node = _numerai_node(inputs["parameters"])
    rounds = [
        _numerai_round(node, round_inputs, T0 + i * DAY_MS) for i, round_inputs in enumerate(inputs["rounds"])
    ]
    year = {model: units_by_window["year"] for model, units_by_window in node.windows.items()}
    return {
        "rounds": rounds,
        "aggregates": {model: number(units) for model, units in year.items()},
        "ranking": board(year),
    }


def _numerai_node(rules: Inputs) -> Node:
    return Node(numerai.contract(PUBKEY, rules), hours=24)


def _once(answers: Inputs) -> dict[str, Any]:
    """Each model's only answer (null: it was asked and did not answer) as arguments of `Node.question`."""
    return {
        "answers_by_model": {
            model: [(T0, as_json(answer))] for model, answer in answers.items() if answer is not None
        },
        "missed": {model: ABSENT for model, answer in answers.items() if answer is None},
    }


def _numerai_round(node: Node, round_inputs: Inputs, at: int) -> dict[str, Any]:
    target, answers = round_inputs["target"], round_inputs["answers"]
    truth = {
        "target": {row_id: target.get(row_id) for row_id in round_inputs["ids"]},
        "late": list(round_inputs["late"]),
    }
    scored = node.question(truth, **_once(answers), stakes=round_inputs["stakes"], at=at)
    data = node.close(at + DAY_MS)
    shares, retained = frac64_shares(data.payout.pools if data.payout else [])
    amounts = {data.ranking[i].model_id: share for i, share in shares.items()}
    values = {name: field_of(scored, name) for name in ("corr", "mmc", "value")}
    shared, models = node.shared, sorted(answers)
    return {
        "refused": _refused(scored),
        "scores": {
            model: None
            if values["value"][model] is None
            else {
                "corr": values["corr"][model], "mmc": values["mmc"][model], "score": values["value"][model]
            }
            for model in models
        },
        "at_risk": {model: shared["at_risk"].get(model, 0.0) for model in models},
        "payout_factor": shared["payout_factor"],
        "ranking": ranking(data, node.contract.score_decimals),
        "payouts_stake": {model: shared["payouts"].get(model, 0.0) for model in models},
        "payouts_frac64": {model: amounts.get(model, 0) for model in models},
        "retained_frac64": retained,
        "stakes_after": {model: state["stake"] for model, state in node.states.items() if model in answers},
    }  # fmt: skip


def _refused(scored: ev.RoundScoredData) -> dict[str, str]:
    """The models without a score and the reason; a file says `absent` of a model that did not answer."""
    statuses = {entry.model_id: entry.status for entry in scored.entries()}
    return {
        model: "absent" if statuses[model] == "ABSENT" else reason
        for model, reason in refused_in(scored).items()
    }


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("datacrunch", "round"): datacrunch_round,
    ("numerai", "round"): numerai_round,
    ("numerai", "season"): numerai_season,
}
"""(challenge, kind of case) -> its player."""
