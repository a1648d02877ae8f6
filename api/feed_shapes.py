"""The shapes of a subscription, its gaps and its records."""

from __future__ import annotations

from coordinator.api.shapes import Shape, Zulu


class Gap(Shape):
    """A gap (from_ts, until_ts] of a feed."""

    from_ts: Zulu
    until_ts: Zulu
    state: str
    reason: str


class Feed(Shape):
    """A subscription: how many records arrived, over which time, up to when it is complete, and its newest gaps."""

    source: str
    subject: str
    kind: str
    granularity: str
    record_count: int
    oldest_ts: Zulu | None
    newest_ts: Zulu | None
    watermark_ts: Zulu | None
    watermark_updated_at: Zulu
    gap_count: int
    gap_reason: str | None
    cadence_seconds: float | None
    open_gap_count: int
    gaps: list[Gap]
    source_state: str | None
    source_reason: str | None


class RecordMeta(Shape):
    """Which revision of a record this is, and whether it came from the source's history."""

    revision: int
    backfilled: bool


class FeedRecord(Shape):
    """One record of a feed. Numbers are JSON numbers here; the log keeps the text that the source quoted."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: Zulu
    ts_ingested: Zulu
    values: dict[str, float | str]
    meta: RecordMeta
