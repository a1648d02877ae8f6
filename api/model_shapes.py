"""The shapes of a model and what it did: metrics, predictions, carried state, snapshots, models that answer alike."""

from __future__ import annotations

from typing import Any, Literal

from coordinator.api.shapes import Id, Naive, ScoreRanking, Shape, WithWindows, Zulu

PredictionStatus = Literal["PENDING", "SCORED", "REPLACED", "FAILED", "ABSENT"]


class Failure(Shape):
    """The newest failure that was the model's fault."""

    code: str
    reason: str
    at: Naive | None


class Model(Shape):
    """A model that was seen at least once."""

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
    rank: int | None
    """Its place on the board."""
    unranked_reason: str | None
    """Why it has none."""


class EnsembleMember(Shape):
    """What a model weighs in an ensemble's round, in 0..1."""

    model_id: Id
    model_name: str
    weight: float


class EnsembleRound(Shape):
    """An ensemble's newest scored round in one scope."""

    ensemble_id: str
    name: str
    subject: str
    scope_key: str
    performed_at: Naive
    scored_at: Naive
    input_id: str
    output: Any
    """Its answer, null where it has none, or one of more bytes than the API keeps (`output_bytes`)."""
    output_bytes: int
    score_value: float | None
    scores: dict[str, float | None]
    """Every field of its score."""
    failed_reason: str | None
    members: list[EnsembleMember]
    """The heaviest first."""


class ModelPoint(WithWindows):
    """A model's score windows at the end of a period."""

    model_id: Id
    performed_at: Naive
    score_metrics: dict[str, float | None]
    score_ranking: ScoreRanking | None = None


class ModelMetrics(WithWindows):
    """A model's period as one flat row: the windows and the contract's aggregates beside the counts."""

    model_id: Id
    model_name: str
    cruncher_name: str
    performed_at: Naive
    scored_count: int
    failed_count: int
    absent_model_count: int
    absent_node_count: int


class Scope(Shape):
    """What a model is asked about, and for how far ahead."""

    subject: str
    horizon_seconds: int | None
    step_seconds: int | None


class ModelScopePoint(ModelPoint):
    """The same for one scope; `asset`, `horizon` and `param` are at the top level for the web app's filters."""

    asset: str
    subject: str
    horizon: int | None
    step: int | None
    param: str
    scope_key: str
    scope: Scope


class Prediction(Shape):
    """One prediction, from the request to its score."""

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
    status: PredictionStatus
    output: Any
    output_bytes: int | None
    """The size of an answer above 64 KiB. Only the log holds such an answer; `output` is null."""
    output_hidden: bool
    """True while others could still copy the answer. `output` is null until the horizon has passed."""
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
    """The model's carried state after this round, if the contract scores rounds as a whole; null if the round did not
    change it."""


class CarriedState(Shape):
    """What a model carries from round to round: positions, wealth, or whatever the contract's `score_round` returns."""

    subject: str | None
    """Null, like `scope_key`, if all rounds of a contract share one state."""
    scope_key: str | None
    state: Any
    shared: Any
    """State that all models of the same rounds share; null if there is none."""
    changed_at: Naive
    changed_by_input_id: str


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


class CopyPair(Shape):
    """Two models that answer alike: `later` gives the answers of `earlier`, `lag` rounds after it (0: in the same)."""

    earlier: str
    earlier_name: str
    later: str
    later_name: str
    kind: Literal["equal", "scaled", "lagged", "noisy"]
    correlation: float | None
    """Pearson's correlation over the numbers that both gave; null if the numbers of one of them never change."""
    equal_share: float
    """The share of numbers that agree to 12 digits."""
    scale: float | None
    lag: int
    common: int
    """How many numbers both gave."""
    distinct: int
    """How many different numbers each of the two gave, the smaller count: two models that always say 0 agree, too."""


class Copies(Shape):
    """Pairs of models that answer alike, the strongest evidence first: at most 1,000 of `pairs_found`."""

    rounds: int
    models: int
    pairs_found: int
    pairs: list[CopyPair]
