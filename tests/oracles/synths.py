"""Players of the rounds and windows of Synth and of the Synth subnet."""

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
    """From a round of densities to refusals, CRPS and scores."""
    round_inputs, parameters = inputs["round"], inputs["parameters"]
    round_asked = synth_terms.asked(
        round_inputs["asset"],
        round_inputs["horizon"],
        steps=round_inputs["steps"],
        half_width=parameters["half_width"][round_inputs["asset"]],
        points=parameters["num_points"],
        normalise=parameters["normalise_pdf"],
    )
    contract = CrunchContract(crunch_pubkey=PUBKEY, scheduled_predictions=[round_asked], **synth.SYNTH)
    node = Node(contract, [round_inputs["asset"]])
    answers_by_model = {
        model: missing("absent", "model") if answer is None else {"steps": answer}
        for model, answer in round_inputs["answers"].items()
    }
    records = ticks(sorted(round_inputs["prices"], key=lambda row: row[0]), round_inputs["asset"])
    (scored,) = node.round(
        records,
        {round_asked.scope_key: answers_by_model},
        round_inputs["asset"],
        at=round_inputs["asked"] * MS,
    ).values()
    return {"refused": refused_in(scored), "crps": field_of(scored, "crps"), "scores": scores_of(scored)}


def _absent_value(records: list[Any]) -> dict[str, Any]:
    """The truth of a round whose scores the case states: the score of an absent model."""
    return {"absent": records[-1].values["price"]}


class AbsentValue(BaseModel):
    """The score of an absent model in a round."""

    absent: float


def _recorded_score(answers: Any, truth: AbsentValue, _: Any) -> list[float]:
    return [truth.absent if answer.output is None else answer.output.value for answer in answers]


def synth_aggregate(inputs: Inputs) -> dict[str, Any]:
    """From scores by parameter and time to means by window, anchors by horizon, and their rankings."""
    params, weights = inputs["params"], inputs["asset_weights"]
    horizons = sorted({name.partition(":")[2] for name in params}, key=int)
    assets = sorted({name.partition(":")[0] for name in params})
    contract = CrunchContract(
        crunch_pubkey=PUBKEY,
        ground_truth_type=AbsentValue,
        resolve_ground_truth=_absent_value,
        score_round=_recorded_score,
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
        answers_by_model = {model: {"value": score} for model, score in scores.items() if score is not None}
        if time < inputs["at"] and name in params:
            node.round(
                ticks([(time, 0.0)], asset), {name: answers_by_model}, asset, at=(time - int(horizon)) * MS
            )
    last = {
        snapshot.model_id: snapshot.boards_units
        for snapshot in node.summed()
        if snapshot.period_end == inputs["at"] * MS
    }
    names = [board_of_node.name for board_of_node in contract.aggregation.boards]
    units_of = {model: last.get(model) or dict.fromkeys(names) for model in models}
    numbers = {
        model: {name: number(units) for name, units in units_by_board.items()}
        for model, units_by_board in units_of.items()
    }
    aggregates = {
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
    return {"aggregates": aggregates, "ranking": boards}


def subnet_window(inputs: Inputs) -> dict[str, Any]:
    """From scores of a window's prompts to rolling means, softmax weights and shares."""
    competitions, weights = inputs["competitions"], inputs["asset_weights"]
    assets = {
        competition["label"]: sorted({row["asset"] for row in competition["rows"]})
        for competition in competitions
    }
    boards_and_pools = [
        synth_subnet.competition(
            competition["label"],
            share,
            competition["beta"],
            {asset: weights[asset] for asset in assets[competition["label"]]},
        )
        for competition, share in zip(
            competitions, _whole([competition["share"] for competition in competitions]), strict=True
        )
    ]
    contract = CrunchContract(
        crunch_pubkey=PUBKEY,
        ground_truth_type=AbsentValue,
        resolve_ground_truth=_absent_value,
        score_round=_recorded_score,
        absence_policy="scored",
        scheduled_predictions=[
            ScheduledPrediction(scope_key=label, scope=PredictionScope(horizon_seconds=1 + i))
            for i, label in enumerate(assets)
        ],
        aggregation=Aggregation(
            boards=[board for board, _ in boards_and_pools],
            ranking_direction="asc",
            checkpoint_key=competitions[0]["label"],
        ),
        payout=Payout(pools=[pool for _, pool in boards_and_pools], retained="prizes_only"),
    )
    times = [row["time"] for competition in competitions for row in competition["rows"]]
    subjects = sorted({name for assets_of_competition in assets.values() for name in assets_of_competition})
    node = Node(contract, subjects, **period_around(min(times), max(times), days_least=30))
    models = sorted(
        {model for competition in competitions for row in competition["rows"] for model in row["scores"]}
    )
    rows = [
        (row, competition["label"], i)
        for i, competition in enumerate(competitions)
        for row in competition["rows"]
    ]
    # A model with a score in a competition takes part in all of it: a prompt without its score counts as the worst score.
    players = {
        competition["label"]: {
            model
            for row in competition["rows"]
            for model, score in row["scores"].items()
            if score is not None
        }
        for competition in competitions
    }
    for row, label, i in sorted(
        rows, key=lambda row_label_index: (row_label_index[0]["time"], row_label_index[2])
    ):
        answers_by_model: dict[str, Any] = {model: missing("absent", "model") for model in players[label]}
        answers_by_model |= {
            model: {"value": score} for model, score in row["scores"].items() if score is not None
        }
        at = (row["time"] - 1 - i) * MS
        node.round(
            ticks([(row["time"], row["worst"])], row["asset"]), {label: answers_by_model}, row["asset"], at=at
        )
    data = node.close()
    pools = data.payout.pools if data.payout else []
    whole = sum(pool.weight for pool in pools)
    part: dict[str, float] = dict.fromkeys(models, 0.0)
    for pool in pools:
        for i, _, parts in pool.paid:
            part[data.ranking[i].model_id] += parts / PARTS * pool.weight / whole
    keys = {
        label: {entry.model_id: entry.result_summary_units.get(label) for entry in data.ranking}
        for label in assets
    }
    return {
        "aggregates": {
            label: {model: number(units) for model, units in units_by_model.items()}
            for label, units_by_model in keys.items()
        },
        "weights": part,
        "ranking": {label: board(units_by_model, "asc") for label, units_by_model in keys.items()},
        "payouts_frac64": shares_of(data),
    }


def _whole(shares: list[float]) -> list[int]:
    """These shares as whole numbers in the same ratio, because a third has no finite decimal."""
    exact = [Fraction(share).limit_denominator(1000) for share in shares]
    return [int(share * math.lcm(*(fraction.denominator for fraction in exact))) for share in exact]


def subnet_prompt(inputs: Inputs) -> dict[str, Any]:
    """From the paths of a prompt to refusals, CRPS and scores; less is better."""
    prompt = inputs["prompt"]
    params = {name: prompt[name] for name in ("simulations", "intervals", "vol_blocks")}
    asked = synth_subnet.prompt(
        "prompt", prompt["length"], prompt["increment"], prompt["length"], rule=inputs["rule"], **params
    )
    contract = CrunchContract(crunch_pubkey=PUBKEY, scheduled_predictions=[asked], **synth_subnet.SUBNET)
    answers_by_model = {
        model: missing("absent", "model") if answer is None else {"answer": answer}
        for model, answer in prompt["answers"].items()
    }
    indexed_prices = [
        (i, price) for i, price in enumerate(prompt["real"]) if price is not None and not math.isnan(price)
    ]
    # A prompt without any price still needs a record: one without a price.
    records = ticks(
        [(prompt["start"] + i * prompt["increment"], price) for i, price in indexed_prices or [(0, None)]]
    )
    (scored,) = Node(contract).round(records, {"prompt": answers_by_model}, at=prompt["start"] * MS).values()
    crps, scores = field_of(scored, "crps"), scores_of(scored)
    valid = [value for value in crps.values() if value is not None]
    fill = field_of(scored, "fill")
    return {
        "refused": {model: "refused" for model, value in crps.items() if value is None},
        "crps": crps,
        "scores": scores,
        "fill": next((value for value in fill.values() if value is not None), None),
        "best": min(valid, default=None),
    }


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("synth", "round"): synth_round,
    ("synth", "aggregate"): synth_aggregate,
    ("synth-subnet", "prompt"): subnet_prompt,
    ("synth-subnet", "window"): subnet_window,
}
"""(challenge, kind of case) -> its player."""
