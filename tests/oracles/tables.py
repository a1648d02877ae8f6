"""What plays the cases of challenges that post tables of ids: DataCrunch's weeks, Numerai's rounds and seasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docs.contracts import datacrunch, numerai
from tests.oracles.node import PUBKEY, Node, asked_at_once, missing, ticks
from tests.oracles.reading import Inputs, as_json, board, field_of, number, ranking, refused_in, scores_of
from tests.streams.build import T0

from coordinator.streams import events as ev
from coordinator.streams.contract.payout_amounts import frac64_shares, money
from coordinator.streams.contract.payout_rules import percentiles

MICRO = 1_000_000
DAY_MS = 86_400_000
ABSENT = missing("absent", "model")


def datacrunch_round(inputs: Inputs) -> dict[str, Any]:
    """A moon's answers and target to refusals, correlations, percentiles and money."""
    rules, moon, target = inputs["parameters"], inputs["round"]["moon"], inputs["round"]["target"]
    contract = asked_at_once(datacrunch.contract(PUBKEY, rules), "moon")
    node = Node(contract, hours=24)
    told = inputs["round"]["answers"]
    answers = {model: ABSENT if said is None else as_json(said) for model, said in told.items()}
    (record,) = ticks([(0, 0.0)])
    record.values = {"moon": moon, **target}
    (scored,) = node.round([record], {"moon": answers}).values()
    data = node.close()
    pool_micro = round(rules["pool_usd"] * MICRO)
    paid, retained = money(data.payout.pools if data.payout else [], pool_micro)
    amounts = {data.ranking[i].model_id: amount for i, amount in paid.items()}
    ranks = percentiles([{"rank": one.rank} for one in data.ranking])
    return {
        "refused": _refused(scored),
        "scores": scores_of(scored),
        "percentile_ranks": {
            one.model_id: float(part) for one, part in zip(data.ranking, ranks, strict=True)
        },
        "ranking": ranking(data, contract.score_decimals),
        "payouts_micro": {one.model_id: amounts.get(one.model_id, 0) for one in data.ranking},
        "retained_micro": retained,
    }


def numerai_round(inputs: Inputs) -> dict[str, Any]:
    """A round's answers, stakes and target to scores, stakes won or burnt, and shares."""
    node = _numerai_node(inputs["parameters"])
    played = _numerai_round(node, inputs["round"], T0)
    del played["stakes_after"]
    return played


def numerai_season(inputs: Inputs) -> dict[str, Any]:
    """Rounds whose stakes go on, a day apart, each paid by itself; the board is of the year."""
    node = _numerai_node(inputs["parameters"])
    rounds = [_numerai_round(node, told, T0 + i * DAY_MS) for i, told in enumerate(inputs["rounds"])]
    year = {model: of["year"] for model, of in node.windows.items()}
    return {
        "rounds": rounds,
        "aggregates": {model: number(units) for model, units in year.items()},
        "ranking": board(year),
    }


def _numerai_node(rules: Inputs) -> Node:
    return Node(asked_at_once(numerai.contract(PUBKEY, rules), "round"), hours=24)


def _numerai_round(node: Node, told: Inputs, at: int) -> dict[str, Any]:
    (record,) = ticks([(at // 1000, 0.0)])
    target = told["target"]
    record.values = {
        f"missing:{one}" if value is None else f"target:{one}": value or 0.0
        for one in told["ids"]
        for value in [target.get(one)]
    }
    record.values |= {f"stake:{model}": stake for model, stake in told["stakes"].items()}
    record.values |= {f"late:{model}": 1.0 for model in told["late"]}
    answers = {model: ABSENT if said is None else as_json(said) for model, said in told["answers"].items()}
    (scored,) = node.round([record], {"round": answers}, at=at).values()
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
        "stakes_after": {model: one["stake"] for model, one in node.states.items() if model in answers},
    }  # fmt: skip


def _refused(scored: ev.RoundScoredData) -> dict[str, str]:
    """Who has no score and why; a file says `absent` of who did not answer."""
    statuses = {one.model_id: one.status for one in scored.entries()}
    return {
        model: "absent" if statuses[model] == "ABSENT" else why for model, why in refused_in(scored).items()
    }


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("datacrunch", "round"): datacrunch_round,
    ("numerai", "round"): numerai_round,
    ("numerai", "season"): numerai_season,
}
"""(challenge, kind of case) -> what plays it."""
