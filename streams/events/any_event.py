"""The union of all events: what a record may be decoded to."""

from __future__ import annotations

from coordinator.streams.events import (
    birth,
    checkpoints,
    commands,
    dead_letters,
    feeds,
    inputs,
    models,
    predictions,
    scores,
    snapshots,
    terms,
)

AnyEvent = (
    birth.TopicBorn
    | terms.CrunchConfigured
    | feeds.FeedRecordReceived
    | feeds.FeedGapFound
    | feeds.FeedGapClosed
    | feeds.FeedStateChanged
    | feeds.PostReceived
    | feeds.ClockTicked
    | feeds.QuestionPosted
    | feeds.QuestionClosed
    | feeds.QuestionResolved
    | feeds.QuestionVoided
    | feeds.StakesPosted
    | inputs.InputReceived
    | inputs.InputOpenedOverGap
    | inputs.InputResolved
    | inputs.InputsUntil
    | inputs.InputClosed
    | inputs.TruthRefused
    | predictions.RoundOpened
    | predictions.ScopeAnswered
    | predictions.RoundAnsweredInPart
    | predictions.RoundAnswered
    | predictions.AnswersClosed
    | models.ModelSeen
    | models.ModelLeft
    | models.ModelBanned
    | models.ModelReadmitted
    | models.ModelFailureReported
    | scores.RoundScored
    | scores.RoundRescored
    | scores.ScoredUntil
    | scores.StateCarried
    | scores.EnsemblesScored
    | snapshots.SnapshotTaken
    | snapshots.PeriodClosed
    | checkpoints.CheckpointOpened
    | checkpoints.CheckpointWithheld
    | checkpoints.PayeesBound
    | checkpoints.CheckpointSubmitted
    | checkpoints.CheckpointSubmissionFailed
    | checkpoints.CheckpointClaimable
    | checkpoints.CheckpointPaid
    | checkpoints.CheckpointCorrected
    | checkpoints.EvidenceKeyRotated
    | checkpoints.CommandRefused
    | commands.ConfirmCheckpoint
    | commands.AdvanceCheckpoint
    | commands.BindPayees
    | commands.WithholdCheckpoint
    | commands.ReleaseCheckpoint
    | commands.FailCheckpointSubmission
    | commands.CorrectCheckpoint
    | commands.RotateEvidenceKey
    | commands.RecordFeed
    | commands.ApplyContract
    | commands.BanModel
    | commands.ReadmitModel
    | commands.PostQuestions
    | commands.CloseQuestions
    | commands.ResolveQuestions
    | commands.VoidQuestions
    | commands.PostStakes
    | commands.SubmitAnswers
    | dead_letters.DeadLettered
)
