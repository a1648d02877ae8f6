"""The names that a challenge author imports: the contract, its parts and types, and the emission strategies.

The folder's files are `contract` (the object), `defaults` (the default challenge), `strategies` and `emission` (the
shares of a ranking), `payout` with its rules and amounts (payment by rules), `rounds` (arguments and results of
`score_round`), `questions` (posted ones), `ensembles` (virtual models), `terms` and `periods` (the rules in force and
the periods they are for), `meaning` (versions of the node's own code in a contract's hash), and `checking/` (can a
contract be played?).
"""

from coordinator.streams.contract.contract import (
    FRAC64_ONE,
    AbsenceConstant,
    AbsencePercentile,
    Aggregation,
    AggregationWindow,
    Board,
    Calendar,
    CallMethod,
    Coverage,
    CrunchContract,
    CruncherReward,
    EmissionCheckpoint,
    Ewma,
    GroundTruth,
    InferenceOutput,
    ModelInput,
    Payout,
    PredictionScope,
    ProviderReward,
    Questions,
    QuestionScope,
    RankingDirection,
    RawInput,
    ScheduledPrediction,
    ScoreResult,
)
from coordinator.streams.contract.ensembles import Ensemble, Member, MinScore, TopN
from coordinator.streams.contract.metrics import Metrics
from coordinator.streams.contract.payout import Pool, Taker
from coordinator.streams.contract.payout_rules import by_percentile, by_softmax, in_proportion, top
from coordinator.streams.contract.rounds import (
    Answer,
    Failed,
    NoScore,
    RoundAnswers,
    RoundContext,
    RoundScores,
)
from coordinator.streams.contract.stake_payout import stake_payout
from coordinator.streams.contract.strategies import by_weights, floored, proportional, softmax, tiers

__all__ = [
    "FRAC64_ONE",
    "AbsenceConstant",
    "AbsencePercentile",
    "Aggregation",
    "AggregationWindow",
    "Answer",
    "Board",
    "Calendar",
    "CallMethod",
    "Coverage",
    "CrunchContract",
    "CruncherReward",
    "EmissionCheckpoint",
    "Ensemble",
    "Ewma",
    "Failed",
    "GroundTruth",
    "InferenceOutput",
    "Member",
    "Metrics",
    "MinScore",
    "ModelInput",
    "NoScore",
    "Payout",
    "Pool",
    "PredictionScope",
    "ProviderReward",
    "QuestionScope",
    "Questions",
    "RankingDirection",
    "RawInput",
    "RoundAnswers",
    "RoundContext",
    "RoundScores",
    "ScheduledPrediction",
    "ScoreResult",
    "Taker",
    "TopN",
    "by_percentile",
    "by_softmax",
    "by_weights",
    "floored",
    "in_proportion",
    "proportional",
    "softmax",
    "stake_payout",
    "tiers",
    "top",
]
