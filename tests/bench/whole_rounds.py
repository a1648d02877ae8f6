"""What a round that is scored as a whole costs: the author's function and all of ours around it, in one thread's CPU time.
And what the end of a snapshot period costs that has all of our metrics.

In this process, without a broker: answers as the log holds them in, columns of units and state out; scores in, summaries out.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from tests.scaffold.workspace import load_contract

from coordinator.streams.contract import Aggregation, CrunchContract, GroundTruth, RoundContext, ScoreResult
from coordinator.streams.contract.metrics import METRIC_NAMES, Metrics
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.round_columns import AskedModels
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.snapshots.summary import Scored, summaries

MODELS = 100
STEPS, COMPONENTS = 5, 3
CONTEXT = RoundContext(
    scope_key="5m", subject="BTCUSDT", horizon_seconds=300, step_seconds=60, point=0, resolvable_at=300_000
)


class Cost(msgspec.Struct, frozen=True):
    """Median CPU time of a round of `MODELS` models."""

    columns_us: float
    densities_ms: float


class Signal(ScoreResult):
    """What the metrics read."""

    signal: float
    outcome: float


class Closing(msgspec.Struct, frozen=True):
    """CPU time of a period's summaries: with every metric, and of the default contract."""

    metrics_s: float
    default_s: float


def closing(rounds: int) -> Closing:
    """Summaries of so many rounds of `MODELS` models: a day of minutes has 1,440."""
    rng = random.Random(1)
    outcomes = [round(rng.gauss(0, 1e6)) for _ in range(rounds)]
    scores: dict[str, list[Scored]] = {}
    for i in range(MODELS):
        column = scores[f"{i:04}"] = []
        for n, outcome in enumerate(outcomes):
            signal = round(rng.uniform(-1e9, 1e9))
            units = {"value": round(signal * outcome / 1e9), "signal": signal, "outcome": outcome}
            column.append((n * 60_000, f"inp/BTCUSDT/{n * 60_000}", "60s", units))
    metrics = CrunchContract(
        score_type=Signal, aggregation=Aggregation(metrics=Metrics(names=list(METRIC_NAMES)))
    )
    alone = {
        name: [(*row[:3], {"value": row[3]["value"]}) for row in column] for name, column in scores.items()
    }
    return Closing(_seconds_of(metrics, scores), _seconds_of(CrunchContract(), alone))


def _seconds_of(contract: CrunchContract, scores: Mapping[str, Sequence[Scored]]) -> float:
    start = time.thread_time_ns()
    summary_of = summaries(contract, scores, {})
    took = (time.thread_time_ns() - start) / 1e9
    if errors := [summary.error for summary in summary_of.values() if summary.error]:
        message = f"a metric failed: {errors[0]}"
        raise RuntimeError(message)
    return took


def measured(rounds: int) -> Cost:
    """A score by columns, relative to the mean; and the density pack's, five mixtures of three in each answer."""
    rng = random.Random(1)
    truth = GroundTruth.model_validate(
        {"entry_price": 1.0, "resolved_price": 1.01, "return": 0.01, "direction_up": True}
    )
    signals = [{"value": rng.uniform(-1, 1)} for _ in range(MODELS)]
    columns_us = _median_us(CrunchContract(score_round=_against_the_mean), signals, truth, rounds)
    with tempfile.TemporaryDirectory() as folder, load_contract("density", Path(folder)) as density:
        answers = [{"steps": [_mixture(rng) for _ in range(STEPS)]} for _ in range(MODELS)]
        changes = density.ground_truth_type(changes=[rng.gauss(0, 5) for _ in range(STEPS)])
        densities_us = _median_us(density, answers, changes, max(3, rounds // 20))
    return Cost(columns_us, densities_us / 1000)


def _against_the_mean(answers: Any, truth: Any, context: Any) -> dict[str, Any]:
    value = answers.column("value") * truth.return_
    return {"value": value - np.nanmean(value)}


def _mixture(rng: random.Random) -> dict[str, Any]:
    norms = [
        {"name": "norm", "params": {"loc": rng.gauss(0, 5), "scale": rng.uniform(1, 20)}}
        for _ in range(COMPONENTS)
    ]
    return {"components": [{"density": norm, "weight": 1 + i} for i, norm in enumerate(norms)]}


def _median_us(contract: CrunchContract, answers: list[Any], truth: Any, rounds: int) -> float:
    scorer = RoundScorer(contract)
    outputs = [msgspec.Raw(msgspec.json.encode(answer)) for answer in answers]
    asked = AskedModels([f"{i:04}" for i in range(MODELS)], [""] * MODELS, outputs, {})
    took = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        outcome = scorer.score(asked, truth, CONTEXT, Carried())
        took.append((time.thread_time_ns() - start) / 1000)
        if outcome.unscored:
            message = f"nobody should fail: {outcome.unscored}"
            raise RuntimeError(message)
    return median(took)
