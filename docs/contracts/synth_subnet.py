"""The Synth subnet (SN50): paths of prices, scored by the CRPS of their changes relative to the round. Less is
better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from docs.contracts.paths import crps, paths_of
from docs.contracts.synth_terms import WEIGHTS
from pydantic import BaseModel, ConfigDict

from coordinator.streams.contract import (
    Aggregation,
    Board,
    CallMethod,
    CrunchContract,
    Payout,
    Pool,
    PredictionScope,
    ScheduledPrediction,
    ScoreResult,
    by_softmax,
)

CAP_MEDIANS, FLAT, RISING = 10, [60_000.0] * 61, [60_000.0 + i for i in range(61)]


class Paths(BaseModel):
    """[start in s, increment in s, [p0, .., pN], ..]."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"answer": [start, 60, *[path] * 1000]}
                for start, path in ((0, FLAT), (0, RISING), (720, FLAT))
            ]
        }
    )
    answer: list[Any]


class Real(BaseModel):
    """The real prices by time in seconds."""

    prices: dict[int, float]


class Score(ScoreResult):
    """`fill` is the score of a missing answer, before the best score is subtracted."""

    fill: float
    crps: float | None = None


def resolve(records: list[Any]) -> dict[str, Any]:
    """The prices from the start on; ticks have a price, candles a close."""
    prices = [record.values.get("price", record.values.get("close")) for record in records]
    return {"prices": {record.at // 1000: price for record, price in zip(records, prices, strict=True)}}


def score_round(answers: Any, truth: Real, context: Any) -> list[Any]:
    """The scores, capped, minus the best one. A model without a valid answer gets the fill."""
    start, increment, length = context.point // 1000, context.step_seconds, context.horizon_seconds
    prompt = {"start": start, "increment": increment, "length": length, **context.params}
    real = np.array([truth.prices.get(at, np.nan) for at in range(start, start + length + 1, increment)])
    older = prompt["rule"] == "2026-05"
    read = [output and paths_of(output.answer, prompt, characters=older) for output in answers.outputs]
    errors = [crps(paths, real, prompt) if isinstance(paths, np.ndarray) else np.inf for paths in read]
    valid = np.array([error for error in errors if np.isfinite(error)])
    if not valid.size:
        return [None] * len(read)
    cap = float(np.percentile(valid, 90)) if older else CAP_MEDIANS * float(np.median(valid)) or np.inf
    fill = cap if older else float(np.percentile(valid[valid <= cap], 95))
    best = float(valid.min())
    return [
        {"fill": fill, "value": min(error, cap) - best, "crps": error}
        if np.isfinite(error)
        else {"fill": fill, "value": fill - best}
        for error in errors
    ]


def competition(label: str, share: float, beta: float, weights: Mapping[str, float]) -> tuple[Board, Pool]:
    """A board with the weighted mean of all prompts' scores, and a pool that is divided by softmax."""
    board = Board(name=label, scope_keys=[label], weights=dict(weights), weigh="scores", every_scope=False)
    return board, Pool(name=label, key=label, weight=share, rule=by_softmax(beta=beta))


def prompt(label: str, length: int, increment: int, interval: int, **params: Any) -> ScheduledPrediction:
    """The schedules of a competition, one for each asset."""
    scope = PredictionScope(horizon_seconds=length, step_seconds=increment)
    return ScheduledPrediction(scope_key=label, scope=scope, interval_seconds=interval, params=params)


SUBNET: dict[str, Any] = {
    "output_type": Paths, "ground_truth_type": Real, "score_type": Score, "resolve_ground_truth": resolve,
    "score_round": score_round, "absence_policy": "scored", "output_max_bytes": 4_000_000, "deadline_seconds": 60,
    "call_method": CallMethod(
        predict_arguments=("subject", "asof_ts", "horizon_seconds", "step_seconds", "simulations")),
}  # fmt: skip
HOUR = {f"{minutes}min": 60 * minutes for minutes in (1, 2, 5, 15, 30)} | {"60min_abs": 3600}
HOUR |= {f"0_{seconds // 60}min_gaps": seconds for seconds in range(300, 3601, 300)}
BOARD, POOL = competition("1h", 1, 0.3, WEIGHTS)
CONTRACT = CrunchContract(
    scheduled_predictions=[prompt("1h", 3600, 60, 720, simulations=1000, intervals=HOUR,
                                  vol_blocks=[3600, 900, 300], rule="2026-09")],
    aggregation=Aggregation(boards=[BOARD], ranking_direction="asc", checkpoint_key="1h"),
    payout=Payout(pools=[POOL], retained="prizes_only"),
    **SUBNET,
)  # fmt: skip
