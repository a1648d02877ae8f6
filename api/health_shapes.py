"""The shapes of the routes about the node itself: health, readiness, counts, and which crunch it runs."""

from __future__ import annotations

from typing import Literal

from coordinator.api.shapes import Shape, Zulu


class Info(Shape):
    """Which crunch this is."""

    crunch_id: str
    crunch_address: str | None
    network: str


class SourceState(Shape):
    """Whether a feed's source is connected."""

    source: str
    state: str
    reason: str
    since: Zulu


class HealthAlert(Shape):
    """An alert for the operator, as in `/reports/invariants` and the webhook."""

    kind: str
    name: str
    text: str


class StageProgress(Shape):
    """How far a stage is.

    `decided_ts` is the event time of its newest decision, `behind_seconds` how far that is behind the feed's clock, and
    `last_written_seconds_ago` the age of its topic's newest record by this machine's clock. A checkpoint is decided
    once a period.
    """

    stage: str
    decided_ts: Zulu | None
    behind_seconds: float | None
    last_written_seconds_ago: float | None


class Healthz(Shape):
    """The node is healthy while it folds records as they arrive. `status` is "degraded" while an alert is on."""

    status: Literal["ok", "degraded", "error", "stalled", "starting"]
    crunch_id: str
    lag: dict[str, int]
    positions: dict[str, int]
    events_folded: int
    duplicates_ignored: int
    last_fold_seconds_ago: float | None
    error: str | None
    clock_ts: Zulu | None
    stages: list[StageProgress]
    sources: list[SourceState]
    alerts: list[HealthAlert]
    open_gaps: int


class Readyz(Shape):
    """Whether every record in the topics is folded."""

    status: Literal["ready", "catching up"]
    lag: dict[str, int]


class Summary(Shape):
    """Counts over all folded events, and the state_hash of each projection."""

    feed_records: int
    inputs: dict[str, int]
    predictions: dict[str, int]
    snapshots: int
    dead_letters: int
    refused_commands: int
    illegal_transitions: int
    duplicates_ignored: int
    state_hash: dict[str, str]
    positions: dict[str, dict[str, int]]
    """Projection -> topic -> next offset: all records before it are in the projection's state_hash."""
