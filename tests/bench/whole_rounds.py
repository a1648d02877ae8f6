"""What a round that is scored as a whole costs: the author's function and all of ours around it, in one thread's CPU time.

In this process, without a broker: answers as the log holds them in, columns of units and state out.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from tests.scaffold.workspace import load_contract

from coordinator.streams.contract import CrunchContract, GroundTruth, RoundContext
from coordinator.streams.scores.round_scorer import Asked, Carried, RoundScorer

MODELS = 100
STEPS, COMPONENTS = 5, 3
CONTEXT = RoundContext(
    scope_key="5m", subject="BTCUSDT", horizon_seconds=300, step_seconds=60, point=0, resolvable_at=300_000
)


class Cost(msgspec.Struct, frozen=True):
    """Median CPU time of a round of `MODELS` models."""

    columns_us: float
    densities_ms: float


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
    asked = Asked([f"{i:04}" for i in range(MODELS)], [""] * MODELS, outputs, {})
    took = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        outcome = scorer.score(asked, truth, CONTEXT, Carried())
        took.append((time.thread_time_ns() - start) / 1000)
        if outcome.unscored:
            message = f"nobody should fail: {outcome.unscored}"
            raise RuntimeError(message)
    return median(took)
