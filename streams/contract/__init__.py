"""What a challenge author imports: the contract, its parts and types, and the emission strategies.

The folder's files are `contract` (the object), `defaults` (the default challenge), `strategies` and `emission` (how a
ranking becomes shares), `terms` (which rules hold when), `meaning` (versions of what is ours in a contract's hash), and
`checking/` (whether a contract can be played).
"""

from coordinator.streams.contract.contract import (
    FRAC64_ONE,
    Aggregation,
    AggregationWindow,
    CallMethod,
    CrunchContract,
    CruncherReward,
    EmissionCheckpoint,
    GroundTruth,
    InferenceOutput,
    ModelInput,
    PredictionScope,
    ProviderReward,
    RankingDirection,
    RawInput,
    ScheduledPrediction,
    ScoreResult,
)
from coordinator.streams.contract.strategies import by_weights, proportional, softmax, tiers

__all__ = [
    "FRAC64_ONE",
    "Aggregation",
    "AggregationWindow",
    "CallMethod",
    "CrunchContract",
    "CruncherReward",
    "EmissionCheckpoint",
    "GroundTruth",
    "InferenceOutput",
    "ModelInput",
    "PredictionScope",
    "ProviderReward",
    "RankingDirection",
    "RawInput",
    "ScheduledPrediction",
    "ScoreResult",
    "by_weights",
    "proportional",
    "softmax",
    "tiers",
]
