"""The contracts of the played questions: events that are scored alone, and a tournament whose rounds are scored whole.

Loaded by the tests and, from this folder, by the worker processes they start.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from coordinator.streams.contract import (
    AbsenceConstant,
    Aggregation,
    AggregationWindow,
    Coverage,
    CrunchContract,
    ScoreResult,
)
from coordinator.streams.contract.questions import Questions

CRUNCH = "So11111111111111111111111111111111111111112"
CLIP, FACTOR = 0.25, 0.5
MISSED = -2
COVERED_SHARE, COVERED_DAYS = 0.85, 100
WEIGHTS = {"last_20": 0.7, "last_5": 0.3}


class Outcome(BaseModel):
    outcome: float


def brier(prediction: Any, truth: Outcome) -> dict[str, float]:
    return {"value": 1 - (prediction.value - truth.outcome) ** 2}


EVENTS = CrunchContract(
    crunch_pubkey=CRUNCH,
    ground_truth_type=Outcome,
    score_prediction=brier,
    questions=Questions(ask_missing_seconds=60),
    absence_policy=AbsenceConstant(value=MISSED),
    aggregation=Aggregation(
        windows=[
            AggregationWindow(name="last_20", last=20),
            AggregationWindow(name="last_5", last=5),
            AggregationWindow(name="weighted", combines=WEIGHTS),
            AggregationWindow(name="quarter", hours=24 * 100),
        ],
        ranking_key="quarter",
    ),
)


GATED = EVENTS.model_copy(update={"coverage": Coverage(share=COVERED_SHARE, hours=24 * COVERED_DAYS)})
"""The same, and a model that is scored in too few of the last events has no rank."""


class Rows(RootModel[list[float]]):
    """A number for each row."""

    model_config = ConfigDict(json_schema_extra={"examples": [[0.5, 1.5, 1.0], [1.0, 0.25, 0.5]]})


class Paid(ScoreResult):
    payout: float = 0.0


class Target(RootModel[dict[str, list[float]]]):
    """The truth of a table, as an object."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"target": [0.0, 1.0, 2.0]}, {"target": [1.0, 0.0, 0.5]}]}
    )


def score_round(answers: Any, truth: Target, context: Any) -> dict[str, list[float]]:
    import numpy as np

    target = np.array(truth.root["target"])
    corr = [float(np.corrcoef(row, target)[0, 1]) for row in answers.column()]
    stakes = [context.stakes.get(model_id, 0.0) for model_id in answers.models]
    pay = [stake * FACTOR * max(-CLIP, min(CLIP, score)) for stake, score in zip(stakes, corr, strict=True)]
    return {"value": corr, "payout": pay}


TOURNAMENT = CrunchContract(
    crunch_pubkey=CRUNCH,
    output_type=Rows,
    ground_truth_type=Target,
    score_type=Paid,
    score_round=score_round,
    score_decimals=6,
    output_max_bytes=1_000_000,
    questions=Questions(ask_missing_seconds=0),
    aggregation=Aggregation(windows=[AggregationWindow(name="all", hours=24 * 140)], ranking_key="all"),
)

ASKED_AGAIN = TOURNAMENT.model_copy(update={"questions": Questions(ask_missing_seconds=3600)})
"""The same, and a model whose answer was lost with the worker is asked again while the round is open."""
