"""Players of cases: each runs a challenge's reference contract through the node and returns the result in the file's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from docs.contracts import btc_up, numinous, synth, synth_terms
from tests.oracles.node import CRUNCH, MINUTE, PUBKEY, T0, Node, missing, period_around, ranked_by
from tests.oracles.reading import DECIMALS, Inputs, is_finite_number, ranking, shares_of

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.offering import build_emission
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.checking.samples import sample_records
from coordinator.streams.contract.emission import PARTS
from coordinator.streams.contract.payout_amounts import pool_amounts
from coordinator.streams.contract.payout_rules import as_written
from coordinator.streams.contract.terms import MS
from coordinator.streams.log import ids
from coordinator.streams.scores.units import to_float, to_units, weighted_mean_units

WEEK_MS = 7 * 86_400 * MS
BOTH = 2
MICRO = 1_000_000


# --- btc-up ----------------------------------------------------------------------------------------------


def btc_up_period(inputs: Inputs) -> dict[str, Any]:
    """From rounds of answers to a period's means, its ranking and its shares."""
    rules = {name: inputs[name] for name in ("absence_policy", "min_participation", "score_decimals")}
    contract = btc_up.contract(crunch_pubkey=PUBKEY, **rules)
    first = T0 // MS
    node = Node(contract, **period_around(first, first + MINUTE // MS * len(inputs["rounds"])))
    models: dict[str, None] = {}
    rounds = []
    for round_inputs in inputs["rounds"]:
        answers = {
            model: {"value": answer.get("value")}
            if answer["status"] == "answered"
            else missing(answer["status"], answer.get("fault", "model"))
            for model, answer in round_inputs["answers"].items()
        }
        models |= dict.fromkeys(answers)
        (scope,) = contract.schedules()
        prices = [
            price
            for price in (round_inputs.get("entry"), round_inputs.get("resolved"))
            if is_finite_number(price)
        ]
        # Without both prices there is no truth.
        records = sample_records(contract, "candle", prices) if len(prices) == BOTH else []
        (scored,) = node.round(records, {scope.scope_key: answers}).values()
        rounds.append(_round(scored, contract))
    data = node.close()
    keys = {entry.model_id: to_float(entry.key_units, contract.score_decimals) for entry in data.ranking}
    return {
        "rounds": rounds,
        "aggregates": {"period": {model: keys.get(model) for model in sorted(models)}},
        "ranking": ranking(data, contract.score_decimals),
        "payouts_frac64": shares_of(data),
    }


def _round(scored: ev.RoundScoredData, contract: CrunchContract) -> dict[str, Any]:
    field, decimals = contract.aggregation.value_field, contract.score_decimals
    entries = scored.entries()
    units = {entry.model_id: entry.units.get(field) for entry in entries}
    return {
        "scores": {
            model: None if score_units is None else to_float(score_units, decimals)
            for model, score_units in units.items()
        },
        "charges": {
            entry.model_id: to_float(entry.charge_units, decimals)
            for entry in entries
            if entry.charge_units is not None
        },
    }


# --- payouts ---------------------------------------------------------------------------------------------


def checkpoint(
    contract: CrunchContract, ranking: list[ev.RankedEntry], end_ms: int = WEEK_MS
) -> ev.CheckpointData:
    """The checkpoint of a week with this ranking; emission and payout are made as the checkpoint stage makes them."""
    built = build_emission(contract, ranking, DECIMALS, end_ms)
    if built.fault:
        raise AssertionError(built.fault)
    return ev.CheckpointData(
        checkpoint_id=ids.checkpoint_id(CRUNCH, end_ms - WEEK_MS, end_ms),
        period_start=end_ms - WEEK_MS,
        period_end=end_ms,
        snapshot_count=1,
        ranking=ranking,
        unranked=[],
        emission=built.emission,
        emission_sha256="",
        contract_hash="",
        rehearsal=False,
        payout=built.payout,
    )


def micro_of(usd: float) -> int:
    """Whole micro-USDC, rounded down."""
    return math.floor(Decimal(repr(usd)) * MICRO)


def _paid(pool: ev.PoolPaid, data: ev.CheckpointData, pool_usd: float, total: int) -> tuple[list[Any], int]:
    amounts, retained = pool_amounts(pool, total)
    rows = [
        {
            "model": data.ranking[i].model_id,
            "rank": rank,
            "fraction": parts / PARTS,
            "usd": parts / PARTS * pool_usd,
            "micro": amount,
        }
        for (i, rank, parts), amount in zip(pool.paid, amounts, strict=True)
    ]
    return rows, retained


def synth_checkpoint(models: list[Inputs], parameters: Inputs, end_ms: int = WEEK_MS) -> ev.CheckpointData:
    """From anchors by horizon to the payout of a week."""
    horizons = {horizon for model in models for horizon in model["scores"]} or {
        *map(str, synth_terms.HORIZONS)
    }
    horizons = tuple(sorted(horizons, key=int))
    benchmarks = [model["model_id"] for model in models if model["is_benchmark"]]
    rules = {
        "alpha": parameters["alpha"],
        "top_k": parameters["top_k"],
        "cutoff": parameters.get("benchmark_cutoff", False),
    }
    payout = synth_terms.payout(benchmarks, horizons, **rules)
    contract = synth.CONTRACT.model_copy(update={"crunch_pubkey": PUBKEY, "payout": payout})
    boards: dict[str, dict[str, int | None]] = {
        horizon: {model["model_id"]: _units(model["scores"].get(horizon)) for model in models}
        for horizon in horizons
    }
    whole = {
        model["model_id"]: next(
            (
                units_by_model[model["model_id"]]
                for units_by_model in boards.values()
                if units_by_model[model["model_id"]] is not None
            ),
            None,
        )
        for model in models
    }
    players = {model["model_id"]: model["player"] for model in models}
    return checkpoint(contract, ranked_by(whole, "desc", players, boards), end_ms)


def synth_payout(inputs: Inputs) -> dict[str, Any]:
    """From anchors by horizon to money by horizon and model."""
    parameters = inputs["parameters"]
    data = synth_checkpoint(inputs["models"], parameters)
    pool_usd, pool_micro = parameters["pool_usd"], micro_of(parameters["pool_usd"])
    pools = data.payout.pools if data.payout else []
    keys = {model["model_id"]: model["scores"] for model in inputs["models"]}
    by_horizon: dict[str, Any] = {}
    by_model: dict[str, int] = {}
    for pool in pools:
        rows, retained = _paid(pool, data, pool_usd / len(pools), pool_micro // len(pools))
        for row in rows:
            row["key"] = keys[row["model"]][pool.name]
            by_model[row["model"]] = by_model.get(row["model"], 0) + row["micro"]
        by_horizon[pool.name] = {"paid": rows, "retained_micro": retained}
    return {"by_horizon": by_horizon, "by_model_micro": by_model, "pool_micro": pool_micro}


def numinous_payout(inputs: Inputs) -> dict[str, Any]:
    """From a board to money."""
    parameters, board = inputs["parameters"], inputs["board"]
    contract = numinous.contract(
        PUBKEY,
        parameters["benchmark"],
        alpha=parameters["alpha"],
        top_k=parameters["top_k"],
        brier_below=parameters["brier_below"],
    )
    keys = {row["model"]: _units(row["weighted"]) for row in board}
    names = ("global_brier", "geopolitics_brier")
    numbers = {name: {row["model"]: _units(row[name]) for row in board} for name in names}
    players = {row["model"]: row["player"] for row in board}
    data = checkpoint(contract, ranked_by(keys, "asc", players, numbers))
    (pool,) = data.payout.pools if data.payout else []
    rows, retained = _paid(pool, data, parameters["pool_usd"], micro_of(parameters["pool_usd"]))
    return {"paid": [row | {"why_not": None} for row in rows], "retained_micro": retained}


# --- the real checkpoint ---------------------------------------------------------------------------------


def horizon_anchors(models: list[Inputs], weights: Mapping[str, float]) -> dict[str, dict[str, int | None]]:
    """Model -> horizon -> its anchor in units: the weighted mean over the horizon's parameters, None if a value is missing."""
    params = sorted({name for model in models for name in model["by_param"]})
    horizons = sorted({name.partition(":")[2] for name in params}, key=int)
    anchors: dict[str, dict[str, int | None]] = {}
    for model in models:
        anchors[model["model_id"]] = {
            horizon: weighted_mean_units(
                (as_written(weights[asset]), _exact_units(model["by_param"].get(name)))
                for name in params
                for asset, _, horizon_of_param in [name.partition(":")]
                if horizon_of_param == horizon
            )
            for horizon in horizons
        }
    return anchors


def _units(value: float | None) -> int | None:
    return None if value is None else to_units(value, DECIMALS)


def _exact_units(value: float | None) -> Fraction | None:
    return None if value is None else as_written(value) * 10**DECIMALS


PLAYED: dict[tuple[str, str], Callable[[Inputs], dict[str, Any]]] = {
    ("btc-up", "period"): btc_up_period,
    ("synth", "payout"): synth_payout,
    ("numinous", "payout"): numinous_payout,
}
"""(challenge, kind of case) -> its player. A case without a kind is a `period`."""
