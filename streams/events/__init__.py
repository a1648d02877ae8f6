"""The events: what may stand in our topics, and nothing else may. One file per topic.

The class names and fields are the stored format (money's format). An event is never edited; a field may be added with
a default; any other change is a new version `v` with an upcaster in `streams/log/envelope.py` and a golden file in
`tests/streams/log/golden/`.

Every event is `{kind, id, at, v, data}`. `id` comes from content, never from chance. `at` is event time
in ms: when the fact became known. Times are Unix ms, durations carry their unit in the name.
A score is an integer number of units of 10**-score_decimals (see `scores/units.py`): it sums exactly.
"""

from coordinator.streams.events.base import Data, Event, Fault, FinalStatus
from coordinator.streams.events.birth import TopicBorn, TopicBornData
from coordinator.streams.events.checkpoints import (
    CheckpointAdvancedData,
    CheckpointClaimable,
    CheckpointCorrected,
    CheckpointCorrectedData,
    CheckpointData,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmissionFailedData,
    CheckpointSubmitted,
    CheckpointSubmittedData,
    CheckpointWithheld,
    CheckpointWithheldData,
    CommandRefused,
    CommandRefusedData,
    Credits,
    ModelCorrection,
    PayeesBound,
    PayeesBoundData,
    PayoutData,
    PoolPaid,
    RankedEntry,
)
from coordinator.streams.events.commands import (
    AdvanceCheckpoint,
    AdvanceCheckpointData,
    ApplyContract,
    ApplyContractData,
    BanModel,
    BanModelData,
    BindPayees,
    BindPayeesData,
    ConfirmCheckpoint,
    ConfirmCheckpointData,
    CorrectCheckpoint,
    CorrectCheckpointData,
    FailCheckpointSubmission,
    FailCheckpointSubmissionData,
    GivenRecord,
    ReadmitModel,
    ReadmitModelData,
    RecordFeed,
    RecordFeedData,
    ReleaseCheckpoint,
    ReleaseCheckpointData,
    WithholdCheckpoint,
    WithholdCheckpointData,
)
from coordinator.streams.events.dead_letters import DeadLettered, DeadLetteredData
from coordinator.streams.events.feeds import (
    ClockTicked,
    ClockTickedData,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    FeedStateChanged,
    FeedStateChangedData,
)
from coordinator.streams.events.inputs import (
    GapSpan,
    InputHistory,
    InputOpenedOverGap,
    InputOpenedOverGapData,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    InputScope,
    InputsUntil,
    InputsUntilData,
    SkippedPoints,
)
from coordinator.streams.events.models import (
    ModelBanned,
    ModelBannedData,
    ModelFailureData,
    ModelFailureReported,
    ModelLeft,
    ModelLeftData,
    ModelReadmitted,
    ModelReadmittedData,
    ModelSeen,
    ModelSeenData,
)
from coordinator.streams.events.predictions import (
    NO_OUTPUT,
    AnswerEntry,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundAnsweredInPart,
    RoundAnsweredInPartData,
    RoundHistory,
    RoundOpened,
    RoundOpenedData,
    RoundPerformance,
    ScopeAnswered,
    ScopeAnsweredData,
    Unanswered,
    answers_in_columns,
)
from coordinator.streams.events.scores import (
    EnsemblesScored,
    EnsemblesScoredData,
    RoundScored,
    RoundScoredData,
    ScoredUntil,
    ScoredUntilData,
    ScoreEntry,
    StateCarried,
    StateCarriedData,
    Unscored,
    in_columns,
    units_of,
)
from coordinator.streams.events.snapshots import (
    Answered,
    FieldSum,
    JoinedAt,
    NewcomerPast,
    PeriodClosed,
    PeriodClosedData,
    PointCount,
    ScopeSum,
    SeriesValue,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.events.terms import (
    BoardPart,
    BoardTerms,
    CalendarTerms,
    CoverageTerms,
    CrunchConfigured,
    EnsembleTerms,
    Feed,
    Scope,
    Terms,
    Window,
)

__all__ = [
    "NO_OUTPUT",
    "AdvanceCheckpoint",
    "AdvanceCheckpointData",
    "AnswerEntry",
    "Answered",
    "AnyEvent",
    "ApplyContract",
    "ApplyContractData",
    "BanModel",
    "BanModelData",
    "BindPayees",
    "BindPayeesData",
    "BoardPart",
    "BoardTerms",
    "CalendarTerms",
    "CheckpointAdvancedData",
    "CheckpointClaimable",
    "CheckpointCorrected",
    "CheckpointCorrectedData",
    "CheckpointData",
    "CheckpointOpened",
    "CheckpointPaid",
    "CheckpointSubmissionFailed",
    "CheckpointSubmissionFailedData",
    "CheckpointSubmitted",
    "CheckpointSubmittedData",
    "CheckpointWithheld",
    "CheckpointWithheldData",
    "ClockTicked",
    "ClockTickedData",
    "CommandRefused",
    "CommandRefusedData",
    "ConfirmCheckpoint",
    "ConfirmCheckpointData",
    "CorrectCheckpoint",
    "CorrectCheckpointData",
    "CoverageTerms",
    "Credits",
    "CrunchConfigured",
    "Data",
    "DeadLettered",
    "DeadLetteredData",
    "EnsembleTerms",
    "EnsemblesScored",
    "EnsemblesScoredData",
    "Event",
    "FailCheckpointSubmission",
    "FailCheckpointSubmissionData",
    "Fault",
    "Feed",
    "FeedGapClosed",
    "FeedGapClosedData",
    "FeedGapData",
    "FeedGapFound",
    "FeedRecordData",
    "FeedRecordReceived",
    "FeedStateChanged",
    "FeedStateChangedData",
    "FieldSum",
    "FinalStatus",
    "GapSpan",
    "GivenRecord",
    "InputHistory",
    "InputOpenedOverGap",
    "InputOpenedOverGapData",
    "InputReceived",
    "InputReceivedData",
    "InputResolved",
    "InputResolvedData",
    "InputScope",
    "InputsUntil",
    "InputsUntilData",
    "JoinedAt",
    "ModelBanned",
    "ModelBannedData",
    "ModelCorrection",
    "ModelFailureData",
    "ModelFailureReported",
    "ModelLeft",
    "ModelLeftData",
    "ModelReadmitted",
    "ModelReadmittedData",
    "ModelSeen",
    "ModelSeenData",
    "NewcomerPast",
    "PayeesBound",
    "PayeesBoundData",
    "PayoutData",
    "PeriodClosed",
    "PeriodClosedData",
    "PointCount",
    "PoolPaid",
    "RankedEntry",
    "ReadmitModel",
    "ReadmitModelData",
    "RecordFeed",
    "RecordFeedData",
    "ReleaseCheckpoint",
    "ReleaseCheckpointData",
    "RosterEntry",
    "RoundAnswered",
    "RoundAnsweredData",
    "RoundAnsweredInPart",
    "RoundAnsweredInPartData",
    "RoundHistory",
    "RoundOpened",
    "RoundOpenedData",
    "RoundPerformance",
    "RoundScored",
    "RoundScoredData",
    "Scope",
    "ScopeAnswered",
    "ScopeAnsweredData",
    "ScopeSum",
    "ScoreEntry",
    "ScoredUntil",
    "ScoredUntilData",
    "SeriesValue",
    "SkippedPoints",
    "SnapshotTaken",
    "SnapshotTakenData",
    "StateCarried",
    "StateCarriedData",
    "Terms",
    "TopicBorn",
    "TopicBornData",
    "Unanswered",
    "Unscored",
    "Window",
    "WithholdCheckpoint",
    "WithholdCheckpointData",
    "answers_in_columns",
    "in_columns",
    "units_of",
]

AnyEvent = (
    TopicBorn
    | CrunchConfigured
    | FeedRecordReceived
    | FeedGapFound
    | FeedGapClosed
    | FeedStateChanged
    | ClockTicked
    | InputReceived
    | InputOpenedOverGap
    | InputResolved
    | InputsUntil
    | RoundOpened
    | ScopeAnswered
    | RoundAnsweredInPart
    | RoundAnswered
    | ModelSeen
    | ModelLeft
    | ModelBanned
    | ModelReadmitted
    | ModelFailureReported
    | RoundScored
    | ScoredUntil
    | StateCarried
    | EnsemblesScored
    | SnapshotTaken
    | PeriodClosed
    | CheckpointOpened
    | CheckpointWithheld
    | PayeesBound
    | CheckpointSubmitted
    | CheckpointSubmissionFailed
    | CheckpointClaimable
    | CheckpointPaid
    | CheckpointCorrected
    | CommandRefused
    | ConfirmCheckpoint
    | AdvanceCheckpoint
    | BindPayees
    | WithholdCheckpoint
    | ReleaseCheckpoint
    | FailCheckpointSubmission
    | CorrectCheckpoint
    | RecordFeed
    | ApplyContract
    | BanModel
    | ReadmitModel
    | DeadLettered
)
