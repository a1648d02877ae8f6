"""The page to read first: the topics, in the order in which data flows through them.

Each topic is declared once, with its writer, its events and what drives it. What is decided for a topic is in its
folder: `streams/<topic>/stage.py`. `coordinator topology` prints this table and draws the diagram from it;
docs/reference/topics.md holds both (a test compares them); `infra/kafka/topics.py` creates what stands here.
"""

from __future__ import annotations

import msgspec

OUTSIDE = "the outside"
"""What no topic holds: feed sources, clocks, models, people, the chain."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One topic: one partition, never deleted."""

    topic: str
    writer: str
    """The worker whose stage alone writes it; for a topic without envelopes the worker that usually does."""
    driven_by: tuple[str, ...]
    """The topics whose events are decided one after another; each decision says how far they are decided."""
    reads: tuple[str, ...] = ()
    """The topics that a decision also needs, and that decide nothing by themselves."""
    events: tuple[str, ...]
    """Its kinds; the first record of every topic is a TopicBorn."""
    enveloped: bool = True
    """True: a record is one decision of an owner (`log/envelope.py`). False: anybody may write, and a record is one
    event (`log/plain_topics.py`).
    """


STREAMS: tuple[Stream, ...] = (
    Stream(
        topic="feeds",
        writer="feed",
        driven_by=(OUTSIDE, "commands"),
        events=(
            "CrunchConfigured",
            "FeedRecordReceived",
            "FeedGapFound",
            "FeedGapClosed",
            "FeedStateChanged",
            "ClockTicked",
            "PostReceived",
            "QuestionPosted",
            "QuestionClosed",
            "QuestionResolved",
            "QuestionVoided",
            "StakesPosted",
        ),
    ),
    Stream(
        topic="inputs",
        writer="feed",
        driven_by=("feeds",),
        events=(
            "CrunchConfigured",
            "QuestionPosted",
            "QuestionVoided",
            "StakesPosted",
            "InputReceived",
            "InputOpenedOverGap",
            "InputClosed",
            "InputResolved",
            "TruthRefused",
            "InputsUntil",
        ),
    ),
    Stream(
        topic="predictions",
        writer="predict",
        driven_by=("inputs", "commands"),
        reads=("feeds", "models"),
        events=(
            "RoundOpened",
            "ScopeAnswered",
            "RoundAnsweredInPart",
            "RoundAnswered",
            "AnswersClosed",
        ),
    ),
    Stream(
        topic="models",
        writer="predict",
        driven_by=(OUTSIDE, "commands"),
        events=(
            "ModelSeen",
            "ModelLeft",
            "ModelBanned",
            "ModelReadmitted",
            "ModelFailureReported",
        ),
    ),
    Stream(
        topic="scores",
        writer="score",
        driven_by=("inputs",),
        reads=("predictions",),
        events=(
            "CrunchConfigured",
            "RoundScored",
            "RoundRescored",
            "StateCarried",
            "EnsemblesScored",
            "ScoredUntil",
        ),
    ),
    Stream(
        topic="snapshots",
        writer="score",
        driven_by=("scores",),
        events=("CrunchConfigured", "SnapshotTaken", "PeriodClosed"),
    ),
    Stream(
        topic="checkpoints",
        writer="checkpoint",
        driven_by=("snapshots", "commands"),
        events=(
            "CrunchConfigured",
            "CheckpointOpened",
            "CheckpointWithheld",
            "PayeesBound",
            "CheckpointSubmitted",
            "CheckpointSubmissionFailed",
            "CheckpointClaimable",
            "CheckpointPaid",
            "CheckpointCorrected",
            "EvidenceKeyRotated",
            "CommandRefused",
        ),
    ),
    Stream(
        topic="commands",
        writer="report",
        driven_by=(OUTSIDE,),
        enveloped=False,
        events=(
            "ConfirmCheckpoint",
            "AdvanceCheckpoint",
            "BindPayees",
            "WithholdCheckpoint",
            "ReleaseCheckpoint",
            "FailCheckpointSubmission",
            "CorrectCheckpoint",
            "RotateEvidenceKey",
            "RecordFeed",
            "ApplyContract",
            "BanModel",
            "ReadmitModel",
            "PostQuestions",
            "CloseQuestions",
            "ResolveQuestions",
            "VoidQuestions",
            "PostStakes",
            "SubmitAnswers",
        ),
    ),
    Stream(
        topic="dead-letters",
        writer="anyone",
        driven_by=(OUTSIDE,),
        enveloped=False,
        events=("DeadLettered",),
    ),
)

BIRTH = "TopicBorn"
"""The kind of the first record of each topic."""
BY_TOPIC: dict[str, Stream] = {stream.topic: stream for stream in STREAMS}
TOPICS: tuple[str, ...] = tuple(BY_TOPIC)
WORKERS: tuple[str, ...] = ("feed", "predict", "score", "checkpoint", "report")


def topic_name(crunch_id: str, topic: str) -> str:
    """The topic's name on the broker: many crunches share a cluster."""
    return f"{crunch_id}.{topic}"


def mermaid() -> str:
    """The flow as a Mermaid diagram, drawn from the table."""
    lines = ["flowchart LR"]
    for stream in STREAMS:
        node = stream.topic.replace("-", "_")
        lines.append(f"    {node}[({stream.topic})]")
        for source in stream.driven_by:
            origin = "outside" if source == OUTSIDE else source.replace("-", "_")
            label = "((outside))" if source == OUTSIDE else ""
            lines.append(f"    {origin}{label} -->|{stream.writer}| {node}")
        lines.extend(
            f"    {source.replace('-', '_')} -.->|{stream.writer}| {node}" for source in stream.reads
        )
    readers = [stream for stream in STREAMS if stream.topic != "commands"]
    lines.extend(f"    {stream.topic.replace('-', '_')} -.->|report| projections" for stream in readers)
    return "\n".join(lines) + "\n"
