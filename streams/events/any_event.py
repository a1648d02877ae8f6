"""The union of all events: what a record may be decoded to."""

from __future__ import annotations

from coordinator.streams.events.birth import (
    TopicBorn,
)
from coordinator.streams.events.checkpoints import (
    CheckpointClaimable,
    CheckpointCorrected,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmitted,
    CheckpointWithheld,
    CommandRefused,
    EvidenceKeyRotated,
    PayeesBound,
)
from coordinator.streams.events.commands import (
    AdvanceCheckpoint,
    ApplyContract,
    BanModel,
    BindPayees,
    CloseQuestions,
    ConfirmCheckpoint,
    CorrectCheckpoint,
    FailCheckpointSubmission,
    PostQuestions,
    PostStakes,
    ReadmitModel,
    RecordFeed,
    ReleaseCheckpoint,
    ResolveQuestions,
    RotateEvidenceKey,
    SubmitAnswers,
    VoidQuestions,
    WithholdCheckpoint,
)
from coordinator.streams.events.dead_letters import (
    DeadLettered,
)
from coordinator.streams.events.feeds import (
    ClockTicked,
    FeedGapClosed,
    FeedGapFound,
    FeedRecordReceived,
    FeedStateChanged,
    PostReceived,
    QuestionClosed,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    StakesPosted,
)
from coordinator.streams.events.inputs import (
    InputClosed,
    InputOpenedOverGap,
    InputReceived,
    InputResolved,
    InputsUntil,
    TruthRefused,
)
from coordinator.streams.events.models import (
    ModelBanned,
    ModelFailureReported,
    ModelLeft,
    ModelReadmitted,
    ModelSeen,
)
from coordinator.streams.events.predictions import (
    AnswersClosed,
    RoundAnswered,
    RoundAnsweredInPart,
    RoundOpened,
    ScopeAnswered,
)
from coordinator.streams.events.scores import (
    EnsemblesScored,
    RoundRescored,
    RoundScored,
    ScoredUntil,
    StateCarried,
)
from coordinator.streams.events.snapshots import (
    PeriodClosed,
    SnapshotTaken,
)
from coordinator.streams.events.terms import (
    CrunchConfigured,
)

AnyEvent = (
    TopicBorn
    | CrunchConfigured
    | FeedRecordReceived
    | FeedGapFound
    | FeedGapClosed
    | FeedStateChanged
    | PostReceived
    | ClockTicked
    | QuestionPosted
    | QuestionClosed
    | QuestionResolved
    | QuestionVoided
    | StakesPosted
    | InputReceived
    | InputOpenedOverGap
    | InputResolved
    | InputsUntil
    | InputClosed
    | TruthRefused
    | RoundOpened
    | ScopeAnswered
    | RoundAnsweredInPart
    | RoundAnswered
    | AnswersClosed
    | ModelSeen
    | ModelLeft
    | ModelBanned
    | ModelReadmitted
    | ModelFailureReported
    | RoundScored
    | RoundRescored
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
    | EvidenceKeyRotated
    | CommandRefused
    | ConfirmCheckpoint
    | AdvanceCheckpoint
    | BindPayees
    | WithholdCheckpoint
    | ReleaseCheckpoint
    | FailCheckpointSubmission
    | CorrectCheckpoint
    | RotateEvidenceKey
    | RecordFeed
    | ApplyContract
    | BanModel
    | ReadmitModel
    | PostQuestions
    | CloseQuestions
    | ResolveQuestions
    | VoidQuestions
    | PostStakes
    | SubmitAnswers
    | DeadLettered
)
