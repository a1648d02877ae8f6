"""The contract of the crash tests: two horizons, a charge for absence, a scoring function that can fail.

Loaded by the tests and, from this folder, by the worker processes they start.
"""

from __future__ import annotations

from typing import Any

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator.streams.contract.defaults import score_prediction

CRUNCH = "So11111111111111111111111111111111111111112"

UNSCORABLE = 0.625


def score(prediction: Any, ground_truth: Any) -> dict[str, Any]:
    """The default score. One value cannot be scored."""
    if prediction.value == UNSCORABLE:
        raise ValueError("this value cannot be scored")
    return score_prediction(prediction, ground_truth)


CONTRACT = CrunchContract(
    scheduled_predictions=[
        ScheduledPrediction(scope_key="1m", scope=PredictionScope(horizon_seconds=60), interval_seconds=60),
        ScheduledPrediction(scope_key="5m", scope=PredictionScope(horizon_seconds=300), interval_seconds=60),
    ],
    aggregation=Aggregation(
        windows=[
            AggregationWindow(name="score_recent", hours=1),
            AggregationWindow(name="score_steady", hours=3),
        ]
    ),
    absence_policy="worst_percentile",
    crunch_pubkey=CRUNCH,
    score_prediction=score,
)
