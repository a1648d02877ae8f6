"""The shapes of every answer: the one place that says which fields there are, of what type, and for whom.

Each answer passes through its shape on the way out (`answers.shaped`): a field too many, too few or of another type is
our own bug and an error, not an answer. The OpenAPI document is made from the same classes. Where a shape is the web
app's (its names, times without a zone for what it plots, numbers at the top level of a row), it says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Naive = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}$", examples=["2023-03-10T00:01:00.000"]),
]
"""UTC without a zone: charts append the Z themselves."""
Zulu = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", examples=["2023-03-10T00:01:00.000Z"]),
]
"""UTC with Z: feeds and checkpoints are read as they are."""
Id = Annotated[str, Field(examples=["trend"])]
Status = Literal["PENDING", "SUBMITTED", "CLAIMABLE", "PAID", "WITHHELD"]


class Shape(BaseModel):
    """No field more, none less; types as they are, nothing is turned into another."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WithWindows(Shape):
    """Score windows stand at the top level under their own names (`score_recent`, ...): charts plot only these."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | None]


class ScoreRanking(Shape):
    """By which window the board ranks, and this row's value of it."""

    key: str
    value: float | None
    direction: Literal["asc", "desc"]


class Failure(Shape):
    """What a model did last that was held against it."""

    code: str
    reason: str
    at: Naive | None


class Model(Shape):
    """A model that was ever seen."""

    model_id: Id
    model_name: str
    cruncher_name: str
    cruncher_id: str
    deployment_id: str
    state: str
    reason: str
    first_seen_at: Naive | None
    last_seen_at: Naive | None
    deployments: int
    last_failure: Failure | None
    wallet_pubkey: str | None
    hotkey: str | None


class ModelPoint(WithWindows):
    """A model's windows at a period's end."""

    model_id: Id
    performed_at: Naive
    score_metrics: dict[str, float | None]
    score_ranking: ScoreRanking | None = None


class ModelMetrics(WithWindows):
    """A model's period, flat: windows and the contract's aggregates stand beside the counts."""

    model_id: Id
    model_name: str
    cruncher_name: str
    performed_at: Naive
    scored_count: int
    failed_count: int
    absent_model_count: int
    absent_node_count: int


class Scope(Shape):
    """What a model is asked about, and how far ahead."""

    subject: str
    horizon_seconds: int | None
    step_seconds: int | None


class ModelScopePoint(ModelPoint):
    """The same for one scope; `asset`, `horizon` and `param` stand at the top level for filters."""

    asset: str
    subject: str
    horizon: int | None
    step: int | None
    param: str
    scope_key: str
    scope: Scope


class Prediction(Shape):
    """One prediction: asked, answered, scored."""

    id: str
    input_id: str
    model_id: Id
    deployment_id: str
    prediction_config_id: str
    scope_key: str
    scope: Scope
    asset: str
    subject: str
    horizon: int | None
    param: str
    status: Literal["PENDING", "SCORED", "FAILED", "ABSENT"]
    output: Any
    output_bytes: int | None
    """Of an answer above 64 KiB, which is in the log alone: then `output` is null."""
    output_hidden: bool
    """True while others could still copy the answer: `output` is null until the horizon has passed."""
    output_hidden_until: Naive | None
    exec_time_us: int
    performed_at: Naive
    resolvable_at: Naive | None
    scored_at: Naive | None
    score_value: float | None
    score: dict[str, float] | None
    score_charge: float | None
    score_success: bool | None
    score_failed: bool
    score_failed_reason: str | None
    fault: str | None
    state: Any
    """What the round left as its model's carried state, where its contract scores rounds as a whole; null where it left
    it as it was."""


class CarriedState(Shape):
    """What a model carries from round to round: positions, wealth, whatever its contract's `score_round` gave."""

    subject: str | None
    """Null, as `scope_key`, where all of a contract's rounds share one state."""
    scope_key: str | None
    state: Any
    shared: Any
    """What all models of the same rounds share; null where there is none."""
    changed_at: Naive
    changed_by_input_id: str


class Gap(Shape):
    """A hole (from_ts, until_ts] of a feed."""

    from_ts: Zulu
    until_ts: Zulu
    state: str
    reason: str


class Feed(Shape):
    """A subscription: how much came, from when to when, up to when it is complete, and its last holes."""

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
    """Which revision of a record this is, and whether history brought it."""

    revision: int
    backfilled: bool


class FeedRecord(Shape):
    """One record of a feed; numbers are numbers here, the log keeps the quoted text."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: Zulu
    ts_ingested: Zulu
    values: dict[str, float | str]
    meta: RecordMeta


class Snapshot(WithWindows):
    """One model's period."""

    id: str
    model_id: Id
    model_name: str
    cruncher_name: str
    period_start: Zulu
    period_end: Zulu
    performed_at: Naive
    prediction_count: int
    scored_count: int
    failed_count: int
    absent_model_count: int
    absent_node_count: int
    no_score_count: int
    result_summary: dict[str, float]
    windows: dict[str, float | None]
    rehearsal: bool
    created_at: Zulu


class Column(Shape):
    """A column of the web app's leaderboard."""

    id: int
    type: Literal["USERNAME", "PROJECT", "VALUE", "REWARD_RANK"]
    property: str
    format: str | None
    displayName: str  # noqa: N815 - the web app's name
    tooltip: str | None
    nativeConfiguration: dict[str, Any] | None  # noqa: N815 - the web app's name
    order: int


class Schema(Shape):
    """What the web app's leaderboard shows."""

    schema_version: str
    leaderboard_columns: list[Column]
    metrics_widgets: list[dict[str, Any]]


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
    """What a person should know, as `/reports/invariants` and the webhook say it."""

    kind: str
    name: str
    text: str


class StageProgress(Shape):
    """How far a stage is: when its newest decision was, in event time and behind the feed's clock, and how long ago by
    this machine's clock anything was written to its topic. Of checkpoints there is one a period.
    """

    stage: str
    decided_ts: Zulu | None
    behind_seconds: float | None
    last_written_seconds_ago: float | None


class Healthz(Shape):
    """Health is progress: records are folded as they come. `status` is "degraded" where an alert is on beside it."""

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
    """Whether all that was in the topics is folded."""

    status: Literal["ready", "catching up"]
    lag: dict[str, int]


class Summary(Shape):
    """Counts of everything folded, and the state_hash of each projection."""

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
    """Projection -> topic -> offset before which all is in its state_hash."""


class CopyPair(Shape):
    """Two models that answer alike. `later` is earlier's answer `lag` rounds later; lag 0: at the same time."""

    earlier: str
    earlier_name: str
    later: str
    later_name: str
    kind: Literal["equal", "scaled", "lagged", "noisy"]
    correlation: float | None
    """Pearson over the numbers that both gave; null where one of them never moves."""
    equal_share: float
    """The share of numbers that agree to 12 digits."""
    scale: float | None
    lag: int
    common: int
    """How many numbers both gave."""
    distinct: int
    """How many different ones the less varied of the two gave: a model that always says 0 agrees with its like."""


class Copies(Shape):
    """Models that answer alike, the strongest evidence first; the 1,000 strongest of `pairs_found`."""

    rounds: int
    models: int
    pairs_found: int
    pairs: list[CopyPair]
