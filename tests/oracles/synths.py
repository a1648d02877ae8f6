"""What plays the rounds and the windows of Synth and of the Synth subnet."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from docs.contracts import synth, synth_subnet, synth_terms
from pydantic import BaseModel
from tests.oracles.node import PUBKEY, Node, missing, period_around, ticks
from tests.oracles.reading import Inputs, board, field_of, number, refused_in, scores_of, shares_of

from coordinator.streams.contract import (
    Aggregation,
    CrunchContract,
    Payout,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator.streams.contract.emission import PARTS
from coordinator.streams.contract.terms import MS


def synth_round(inputs: Inputs) -> dict[str, Any]:
    """A round of densities to refusals, CRPS and scores."""
    told, parameters = inputs["round"], inputs["parameters"]
    round_asked = synth_terms.asked(
        told["asset"],
        told["horizon"],
        steps=told["steps"],
        half_width=parameters["half_width"][told["asset"]],
        points=parameters["num_points"],
        normalise=parameters["normalise_pdf"],
    )
    contract = CrunchContract(crunch_pubkey=PUBKEY, scheduled_predictions=[round_asked], **synth.SYNTH)
    node = Node(contract, [told["asset"]])
    said = {
        model: missing("absent", "model") if answer is None else {"steps": answer}
        for model, answer in told["answers"].items()
    }
    records = ticks(sorted(told["prices"], key=lambda row: row[0]), told["asset"])
    (scored,) = node.round(
        records, {round_asked.scope_key: said}, told["asset"], at=told["asked"] * MS
    ).values()
    return {"refused": refused_in(scored), "crps": field_of(scored, "crps"), "scores": scores_of(scored)}


def _given(records: list[Any]) -> dict[str, Any]:
    """The truth of a round whose scores are told: what an absent model is worth."""
    return {"absent": records[-1].values["price"]}


class Told(BaseModel):
    """What an absent model is worth in a round."""

    absent: float


def _told_score(answers: Any, truth: Told, _: Any) -> list[float]:
    return [truth.absent if one.output is None else one.output.value for one in answers]


def synth_aggregate(inputs: Inputs) -> dict[str, Any]:
    """Scores by parameter and time to means by window, anchors by horizon, and their rankings."""
    params, weights = inputs["params"], inputs["asset_weights"]
    horizons = sorted({name.partition(":")[2] for name in params}, key=int)
    assets = sorted({name.partition(":")[0] for name in params})
    contract = CrunchContract(
        crunch_pubkey=PUBKEY,
        ground_truth_type=Told,
        resolve_ground_truth=_given,
        score_round=_told_score,
        scheduled_predictions=[
            ScheduledPrediction(
                scope_key=name,
                scope=PredictionScope(
                    subject=name.partition(":")[0], horizon_seconds=int(name.partition(":")[2])
                ),
            )
            for name in params
        ],
        aggregation=synth_terms.aggregation(params, weights),
    )
    node = Node(contract, assets, end_ms=inputs["at"] * MS)
    models = sorted({model for *_, scores in inputs["scores"] for model in scores})
    for name, time, scores in sorted(inputs["scores"], key=lambda row: row[1]):
        asset, _, horizon = name.partition(":")
        said = {model: {"value": one} for model, one in scores.items() if one is not None}
        if time < inputs["at"] and name in params:
            node.round(ticks([(time, 0.0)], asset), {name: said}, asset, at=(time - int(horizon)) * MS)
    last = {one.model_id: one.boards_units for one in node.summed() if one.period_end == inputs["at"] * MS}
    names = [one.name for one in contract.aggregation.boards]
    units_of = {model: last.get(model) or dict.fromkeys(names) for model in models}
    numbers = {model: {name: number(units) for name, units in of.items()} for model, of in units_of.items()}
    found = {
        model: {
            window: {
                "by_param": {name: numbers[model][f"{window} {name}"] for name in params},
                **{name: numbers[model][f"{window} {name}"] for name in ("all", *horizons)},
            }
            for window in synth_terms.WINDOWS
        }
        for model in models
    }
    boards = {
        name: board({model: units_of[model][f"anchor {name}"] for model in models})
        for name in ("all", *horizons)
    }
    return {"aggregates": found, "ranking": boards}


def subnet_window(inputs: Inputs) -> dict[str, Any]:
    """Scores of a window's prompts to rolling means, softmax weights and shares."""
    told, weights = inputs["competitions"], inputs["asset_weights"]
    assets = {one["label"]: sorted({row["asset"] for row in one["rows"]}) for one in told}
    made = [
        synth_subnet.competition(
            one["label"], share, one["beta"], {asset: weights[asset] for asset in assets[one["label"]]}
        )
        for one, share in zip(told, _whole([one["share"] for one in told]), strict=True)
    ]
    contract = CrunchContract(
        crunch_pubkey=PUBKEY,
        ground_truth_type=Told,
        resolve_ground_truth=_given,
        score_round=_told_score,
        absence_policy="scored",
        scheduled_predictions=[
            ScheduledPrediction(scope_key=label, scope=PredictionScope(horizon_seconds=1 + i))
            for i, label in enumerate(assets)
        ],
        aggregation=Aggregation(
            boards=[board for board, _ in made], ranking_direction="asc", checkpoint_key=told[0]["label"]
        ),
        payout=Payout(pools=[pool for _, pool in made], retained="prizes_only"),
    )
    times = [row["time"] for one in told for row in one["rows"]]
    subjects = sorted({name for of in assets.values() for name in of})
    node = Node(contract, subjects, **period_around(min(times), max(times), days_least=30))
    models = sorted({model for one in told for row in one["rows"] for model in row["scores"]})
    rows = [(row, one["label"], i) for i, one in enumerate(told) for row in one["rows"]]
    # Who has a score in a competition takes part in it; what it was not asked, or missed, counts as the prompt's worst.
    players = {
        one["label"]: {
            model for row in one["rows"] for model, score in row["scores"].items() if score is not None
        }
        for one in told
    }
    for row, label, i in sorted(rows, key=lambda each: (each[0]["time"], each[2])):
        said: dict[str, Any] = {model: missing("absent", "model") for model in players[label]}
        said |= {model: {"value": one} for model, one in row["scores"].items() if one is not None}
        at = (row["time"] - 1 - i) * MS
        node.round(ticks([(row["time"], row["worst"])], row["asset"]), {label: said}, row["asset"], at=at)
    data = node.close()
    pools = data.payout.pools if data.payout else []
    whole = sum(pool.weight for pool in pools)
    part: dict[str, float] = dict.fromkeys(models, 0.0)
    for pool in pools:
        for i, _, parts in pool.paid:
            part[data.ranking[i].model_id] += parts / PARTS * pool.weight / whole
    keys = {
        label: {one.model_id: one.result_summary_units.get(label) for one in data.ranking} for label in assets
    }
    return {
        "aggregates": {
            label: {model: number(units) for model, units in of.items()} for label, of in keys.items()
        },
        "weights": part,
        "ranking": {label: board(of, "asc") for label, of in keys.items()},
        "payouts_frac64": shares_of(data),
    }


def _whole(shares: list[float]) -> list[int]:
    """These shares as whole numbers of the same ratio: a third has no end as a decimal."""
    exact = [Fraction(one).limit_denominator(1000) for one in shares]
    return [int(one * math.lcm(*(each.denominator for each in exact))) for one in exact]


def subnet_prompt(inputs: Inputs) -> dict[str, Any]:
    """Paths of one prompt to refusals, CRPS and scores; less is better."""
    told = inputs["prompt"]
    params = {name: told[name] for name in ("simulations", "intervals", "vol_blocks")}
    asked = synth_subnet.prompt(
        "prompt", told["length"], told["increment"], told["length"], rule=inputs["rule"], **params
    )
    contract = CrunchContract(crunch_pubkey=PUBKEY, scheduled_predictions=[asked], **synth_subnet.SUBNET)
    said = {
        model: missing("absent", "model") if answer is None else {"answer": answer}
        for model, answer in told["answers"].items()
    }
    known = [
        (i, price) for i, price in enumerate(told["real"]) if price is not None and not math.isnan(price)
    ]
    # A record without a price stands for a stretch without any.
    records = ticks([(told["start"] + i * told["increment"], price) for i, price in known or [(0, None)]])
    (scored,) = Node(contract).round(records, {"prompt": said}, at=told["start"] * MS).values()
    crps, scores = field_of(scored, "crps"), scores_of(scored)
    valid = [one for one in crps.values() if one is not None]
    fill = field_of(scored, "fill")
    return {
        "refused": {model: "refused" for model, one in crps.items() if one is None},
        "crps": crps,
        "scores": scores,
        "fill": next((one for one in fill.values() if one is not None), None),
        "best": min(valid, default=None),
    }


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("synth", "round"): synth_round,
    ("synth", "aggregate"): synth_aggregate,
    ("synth-subnet", "prompt"): subnet_prompt,
    ("synth-subnet", "window"): subnet_window,
}
"""(challenge, kind of case) -> what plays it."""
