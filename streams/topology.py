"""The page: how all flows. Each topic is declared once, with its writer, its events and what drives it.

`coordinator topology` prints this table and draws the diagram from it; docs/reference/topics.md holds both (a test
compares them); `infra/kafka/topics.py` creates what stands here.
"""

from __future__ import annotations

import msgspec


class Stream(msgspec.Struct, frozen=True):
    """One topic: one partition, one writing stage (except for topics with many writers), never deleted."""

    topic: str
    writer: str
    driven_by: tuple[str, ...]
    reads: tuple[str, ...]
    events: tuple[str, ...]
    """Its kinds; the first record of every topic is a TopicBorn."""
    enveloped: bool = True


STREAMS: tuple[Stream, ...] = (
    Stream(
        "feeds",
        "feed",
        ("the outside", "commands"),
        (),
        (
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
        "inputs",
        "feed",
        ("feeds",),
        (),
        (
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
        "predictions",
        "predict",
        ("inputs", "commands"),
        ("feeds", "models"),
        (
            "RoundOpened",
            "ScopeAnswered",
            "RoundAnsweredInPart",
            "RoundAnswered",
            "AnswersClosed",
        ),
    ),
    Stream(
        "models",
        "predict",
        ("the outside", "commands"),
        (),
        ("ModelSeen", "ModelLeft", "ModelBanned", "ModelReadmitted", "ModelFailureReported"),
    ),
    Stream(
        "scores",
        "score",
        ("inputs",),
        ("predictions",),
        (
            "CrunchConfigured",
            "RoundScored",
            "RoundRescored",
            "StateCarried",
            "EnsemblesScored",
            "ScoredUntil",
        ),
    ),
    Stream("snapshots", "score", ("scores",), (), ("CrunchConfigured", "SnapshotTaken", "PeriodClosed")),
    Stream(
        "checkpoints",
        "checkpoint",
        ("snapshots", "commands"),
        (),
        (
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
        "commands",
        "report",
        ("the outside",),
        (),
        (
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
        enveloped=False,
    ),
    Stream("dead-letters", "anyone", ("the outside",), (), ("DeadLettered",), enveloped=False),
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
            origin = "outside" if source == "the outside" else source.replace("-", "_")
            label = {"outside": "((outside))"}.get(origin, "")
            lines.append(f"    {origin}{label} -->|{stream.writer}| {node}")
        lines.extend(
            f"    {source.replace('-', '_')} -.->|{stream.writer}| {node}" for source in stream.reads
        )
    readers = [stream for stream in STREAMS if stream.topic != "commands"]
    lines.extend(f"    {stream.topic.replace('-', '_')} -.->|report| projections" for stream in readers)
    return "\n".join(lines) + "\n"
