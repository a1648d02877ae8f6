"""The contract: everything that makes one crunch different from another, in one object.

A challenge author overrides fields in `runtime_definitions/contracts.py`; unknown fields are refused. Types are
pydantic models, behaviour is plain functions. Only a stage that decides calls the functions, once. Their results are
recorded, so folding and replay never call them again.

The default challenge: the sign of the return over the horizon, scored by a quadratic rule (`defaults.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coordinator.streams.contract import defaults
from coordinator.streams.contract.absence import AbsenceConstant, AbsencePercentile
from coordinator.streams.contract.aggregation import Aggregation, AggregationWindow, Ewma, RankingDirection
from coordinator.streams.contract.boards import Board
from coordinator.streams.contract.call_method import PREDICT_NAMES, CallMethod
from coordinator.streams.contract.coverage import Coverage
from coordinator.streams.contract.emission import FRAC64_ONE
from coordinator.streams.contract.ensembles import ENSEMBLES_MAX, Ensemble
from coordinator.streams.contract.ineffective_fields import set_in_vain
from coordinator.streams.contract.payout import Payout
from coordinator.streams.contract.periods import Calendar
from coordinator.streams.contract.questions import Questions, QuestionScope
from coordinator.streams.contract.rounds import RoundAnswers, RoundContext
from coordinator.streams.contract.schedules import PredictionScope, ScheduledPrediction
from coordinator.streams.contract.types import (
    CruncherReward,
    EmissionCheckpoint,
    GroundTruth,
    InferenceOutput,
    ModelInput,
    ProviderReward,
    RawInput,
    ScoreResult,
)
from coordinator.streams.log.ids import is_ensemble

__all__ = [
    "FRAC64_ONE",
    "AbsenceConstant",
    "AbsencePercentile",
    "Aggregation",
    "AggregationWindow",
    "Board",
    "Calendar",
    "CallMethod",
    "Coverage",
    "CrunchContract",
    "CruncherReward",
    "EmissionCheckpoint",
    "Ewma",
    "GroundTruth",
    "InferenceOutput",
    "ModelInput",
    "Payout",
    "PredictionScope",
    "ProviderReward",
    "QuestionScope",
    "Questions",
    "RankingDirection",
    "RawInput",
    "ScheduledPrediction",
    "ScoreResult",
]


INPUT_RECORDS_MAX = 50_000  # 30 days of minutes are 43,200


class CrunchContract(BaseModel):
    """One crunch. Unknown fields are refused. Otherwise a misspelt field would silently have its default."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True)

    raw_input_type: type[BaseModel] = RawInput
    """The type of a feed record, as `build_input` and `resolve_ground_truth` get it: `values["close"]` is a float."""
    input_type: type[BaseModel] = ModelInput
    """The type of the result of `build_input`, which a model's `tick` receives. A result of another type is the
    author's fault.
    """
    output_type: type[BaseModel] = InferenceOutput
    """The type of an answer: `{"value": 0.4}`, or any type that a `RootModel` describes, such as a list:
    `class Paths(RootModel[list[list[float]]]): model_config = ConfigDict(json_schema_extra={"examples": [[[1.0]]]})`.
    Such examples, and those of single fields (`Field(examples=[..])`), are tried by `contract check`. An answer of
    another type is FAILED by its model's fault."""
    ground_truth_type: type[BaseModel] = GroundTruth
    """The type of the result of `resolve_ground_truth`, which the scoring receives."""
    score_type: type[BaseModel] = ScoreResult
    """The type of a score. Each of its numeric fields is recorded in units of 10**-score_decimals, shown and summed."""

    scope: PredictionScope = PredictionScope()
    """The horizon and the step asked each minute about each subject, if `scheduled_predictions` is empty."""
    scheduled_predictions: list[ScheduledPrediction] = []
    """The schedules, for several horizons, subjects or intervals. Each needs its own `scope_key`."""
    questions: Questions | None = None
    """How posted questions are asked, and which answers count. Then, without `scheduled_predictions`, nothing is
    asked on a grid."""
    call_method: CallMethod = CallMethod()
    """The names of a model's two methods, and their arguments."""
    aggregation: Aggregation = Aggregation()
    """How scores become a board and a payment."""

    input_records: int = Field(default=120, gt=0, le=INPUT_RECORDS_MAX)
    """The greatest number of records of an input: `build_input` gets this many of a subject, up to the point."""
    input_records_first: int = Field(default=0, ge=0, le=INPUT_RECORDS_MAX)
    """The number of records for the first tick of a model: one that joined or was restarted, or that did not answer the
    round before, and so may have missed its tick. At least `input_records`; 0: as many as for any other tick."""
    deadline_seconds: float = Field(default=10, gt=0, le=3600)
    """The time that a model has for its answer, from the moment the input is made. A later answer is ABSENT by its
    model's fault."""
    grace_seconds: float = Field(default=5, ge=0, le=86400)
    """How long after a horizon the node waits for a record at or past its end. Without one there is no truth."""
    gap_policy: Literal["wait", "accept"] = "wait"
    """What happens if records are missing in the window of a truth. `wait`: the node waits for them up to
    `gap_wait_seconds`; then there is no truth, with that reason. `accept`: the truth is computed from the records that
    are there when the window has ended."""
    gap_wait_seconds: float = Field(default=21_600, ge=0, le=604_800)
    """How long after the end of its window a truth waits for missing records. A period in which records are missing
    does not close earlier. The node does not wait for a gap that the source's history has too."""
    output_max_bytes: int = Field(default=65536, gt=0, le=4_000_000)
    """The greatest size of a recorded answer as JSON. On the wire an answer may have 4 times that, and at most 8 MB: a
    larger one is refused before it is decoded. A refused answer is FAILED by its model's fault. Answers above 64 KiB
    are only in the log; the API shows their size."""
    model_strikes_max: int = Field(default=100, ge=0)
    """After this many rounds in a row without a valid prediction, by its own fault, a model is reported to the
    orchestrator, which stops it. 0: never."""
    score_decimals: int = Field(default=9, ge=0, le=12)
    """The number of decimals of every recorded number: 9 means units of 1e-9. Sums of units are exact."""
    absence_policy: (
        Literal["ignore", "zero", "worst", "worst_percentile", "scored"] | AbsenceConstant | AbsencePercentile
    ) = "ignore"
    """The charge for a model that did not answer a round by its own fault: none, a score of 0, the worst score of the
    round, the 10th percentile of its scores, `AbsenceConstant(value=-1)`, `AbsencePercentile(percent=25)`. Or `scored`:
    the number that `score_round` returns for it, for any fault. In a round without a truth, `zero` and a constant still
    charge a model that did not answer (it was asked, and is at fault). The other policies have no scores there to
    charge by. A model that answered is charged nothing.
    """
    min_participation: float = Field(default=0.0, ge=0.0, le=1.0)
    """A model that is scored in less than this share of the period's rounds is not paid. All rounds whose truth becomes
    known in the period count, for every model, except those that failed by the node's fault."""
    newcomer_excuse_max: float = Field(default=0.5, ge=0.0, le=1.0)
    """For a new player, rounds do not count that were asked both before it joined and before the period began: with a
    horizon of a day, those of the day before. At most this share of the period's rounds is excused; 0: none. A further
    model of a player with an earlier model is excused from no round.
    """
    newcomer_past: Literal["nothing", "worst", "median"] = "nothing"
    """The value of a round before a model joined, in the windows and the checkpoint period. `nothing`: its mean is that
    of its own scores. `worst` or `median`: for each round and scope, the worst or the median of the round's scores, as
    if the model had been charged that. It needs a score of its own to be ranked. With `worst` or `median` the live
    board shows windows as of the end of the last snapshot period; summary keys have no such values.
    """
    coverage: Coverage | None = None
    """The least share of the rounds of a trailing span in which a model must be scored to be ranked and paid:
    `Coverage(share=0.85, hours=336)`, or `Coverage(share=0.9, rounds=600)`. None: no such rule."""
    answers_hidden_until: Literal["resolvable", "recorded"] = "resolvable"
    """How long the API hides the answers of models. `resolvable`: until the horizon has passed, so that no model can
    copy another. `recorded`: only until the round is recorded."""

    calendar: Calendar | None = None
    """When checkpoint periods begin: by weekday, hour and zone, with an unpaid warm-up and an end. None: the intervals
    in the node's settings are used."""

    crunch_pubkey: str | None = None
    """The address of the crunch on chain (base58), for the emission."""
    compute_provider: str | None = None
    """The address that gets the whole pool of compute providers (base58); None: that pool is empty."""
    data_provider: str | None = None
    """The address that gets the whole pool of data providers (base58); None: that pool is empty."""

    build_input: Callable[[list[Any]], Any] = defaults.build_input
    """(feed records up to now, oldest first) -> input_type or its dict. Called once for a round and subject, with
    the last `input_records`, and once more with `input_records_first` if a model needs those.

    Each record is a `raw_input_type`: see `RawInput`. The result must be JSON without NaN. A model gets nothing else.

        def build_input(records):
            return {"symbol": records[-1].subject, "asof_ts": records[-1].at,
                    "closes": [record.values["close"] for record in records]}
    """
    resolve_ground_truth: Callable[[list[Any]], dict[str, Any] | None] = defaults.resolve_ground_truth
    """(the records from the round's point to its horizon, oldest first) -> ground_truth_type or its dict. None:
    there is no truth, and no model is scored, by the node's fault. The first record is the newest at the point, the
    last is the newest at the horizon.

        def resolve_ground_truth(records):
            closes = [record.values["close"] for record in records]
            return {"entry_price": closes[0], "resolved_price": closes[-1], "return": closes[-1] / closes[0] - 1,
                    "direction_up": closes[-1] > closes[0]}
    """
    score_prediction: Callable[[Any, Any], Any] = defaults.score_prediction
    """(prediction, ground truth) -> score_type. If it raises, or returns a number that is not finite or above 2**53
    units, that prediction is FAILED: by its model's fault if the function scores another answer by the same truth, by
    the author's fault if it scores none. To fail an answer by its model's fault, return `success=False` with a
    `failed_reason`. For no score by nobody's fault, return `NoScore("why")`.

        def score_prediction(prediction, truth):
            return {"value": -abs(prediction.value - truth.return_)}
    """
    score_round: Callable[[RoundAnswers, Any, RoundContext], Any] | None = None
    """(answers, ground truth, context) -> a score for each of the n models asked, instead of `score_prediction`: for
    scores that depend on the other answers, or on state that is carried from round to round.

    `answers` is a `RoundAnswers` of one round and scope, in the order of model ids; `context` is a `RoundContext`. The
    result is columns, `{"value": <n numbers: a numpy array or a list, NaN for no score>, ..}`; or a sequence of n, each
    a number, a `score_type` or its dict, `Failed("why")`, `NoScore("why")`, or None; or a `RoundScores` with either of
    them, with failures and state. An answer without a number is FAILED, by its model's fault if the function scores
    another one in this round. If the function raises, the answers with which it does fail by their models' fault, and
    the others are scored without them, as if those models had given none. If it raises whatever was answered, or for
    too many answers to be sought, the round fails by the node's fault, and the state stays.

        def score_round(answers, truth, context):
            value = answers.column("value")               # (n,) float64, NaN without an answer
            return {"value": value * truth.return_ - np.nanmean(value) * truth.return_}
    """
    state_scope: Literal["scope", "all"] = "scope"
    """The rounds that share the state of `score_round`: those of one subject and scope_key, or all."""
    state_max_bytes: int = Field(default=4096, gt=0, le=65536)
    """The greatest size as JSON of the state of one model, or of the shared state. A model whose state is larger is
    FAILED in that round and keeps its old state; a larger shared state fails the round."""
    aggregate_snapshot: Callable[[list[Any]], dict[str, Any]] = defaults.aggregate_snapshot
    """(a model's scores of one snapshot period, by resolvable time) -> numbers by name. Each is in the snapshot's
    summary, and `checkpoint_key` may rank by it. If it raises, the summary has the reason; sums and windows stay. Each
    score is a `score_type`, also one that failed (`success=False`).

        def aggregate_snapshot(scores):
            values = [score.value for score in scores if score.success]
            return {"best": max(values)} if values else {}
    """
    build_emission: Callable[..., Any] = defaults.build_emission
    """(ranked entries, crunch_pubkey, compute_provider, data_provider) -> the emission on chain. An entry is a dict of
    `model_id`, `rank` (equal rank: tied) and its figures; shares are billionths and sum to 1,000,000,000. `tiers`,
    `proportional`, `softmax` and `by_weights` are such functions.

        def build_emission(ranked_entries, crunch_pubkey, compute_provider=None, data_provider=None):
            # ranked_entries: [{"model_id": "m1", "player": "p1", "rank": 1, "key": 0.42, ..}, ..], best first
            return {"crunch": crunch_pubkey, "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 1_000_000_000}]}
    """
    ensembles: list[Ensemble] = Field(default=[], max_length=ENSEMBLES_MAX)
    """Virtual models that combine the answers of a round: `[Ensemble(name="equal")]`. They are scored as the models
    are, but have no rank and no pay, and change no other score.
    """
    payout: Payout | None = None
    """Payout by rules: pools, places, benchmarks, a retained share. It replaces `build_emission`."""

    @field_validator("scheduled_predictions")
    @classmethod
    def _scope_keys_are_distinct(cls, schedules: list[ScheduledPrediction]) -> list[ScheduledPrediction]:
        keys = [schedule.scope_key for schedule in schedules]
        if len(set(keys)) != len(keys):
            message = f"two schedules share a scope_key: {keys}"
            raise ValueError(message)
        return schedules

    @model_validator(mode="after")
    def _sets_nothing_in_vain(self) -> CrunchContract:
        if pair := set_in_vain(self):
            raise ValueError(pair)
        return self

    @model_validator(mode="after")
    def _is_paid_in_one_way(self) -> CrunchContract:
        if self.payout is not None and self.build_emission is not defaults.build_emission:
            raise ValueError("payout and build_emission both say how a ranking is paid; set one of them")
        return self

    @model_validator(mode="after")
    def _ensembles_are_known(self) -> CrunchContract:
        names = [ensemble.name for ensemble in self.ensembles]
        if len(set(names)) != len(names):
            raise ValueError(f"ensembles: two share a name: {names}")
        metrics = self.aggregation.metrics
        if metrics is not None and metrics.ensemble and metrics.ensemble not in names:
            raise ValueError(
                f"aggregation.metrics.ensemble: {metrics.ensemble!r} is none of the ensembles {names}"
            )
        if self.payout is not None and (
            virtual := [model_id for model_id in self.payout.benchmarks if is_ensemble(model_id)]
        ):
            raise ValueError(
                f"payout.benchmarks: {virtual} are ensembles, which stand in no checkpoint's ranking"
            )
        return self

    @model_validator(mode="after")
    def _is_scored_in_one_way(self) -> CrunchContract:
        if self.score_round is not None and self.score_prediction is not defaults.score_prediction:
            message = "score_prediction and score_round are both set: a contract scores by one of them"
            raise ValueError(message)
        if self.absence_policy == "scored" and self.score_round is None:
            message = "absence_policy 'scored' is what score_round gives, and there is none"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _arguments_are_known(self) -> CrunchContract:
        for schedule in self.schedules():
            possible = PREDICT_NAMES | schedule.params.keys()
            if unknown := [name for name in self.call_method.predict_arguments if name not in possible]:
                message = (
                    f"call_method.predict_arguments: {unknown} are neither of {sorted(PREDICT_NAMES)} nor params of "
                    f"the schedule {schedule.scope_key!r}"
                )
                raise ValueError(message)
        return self

    def params_of(self, scope_key: str) -> dict[str, Any]:
        """The params of a schedule, or of a scope of questions; empty for an unknown key."""
        for schedule in self.scheduled_predictions:
            if schedule.scope_key == scope_key:
                return schedule.params
        for scope in self.questions.scopes if self.questions else ():
            if scope.scope_key == scope_key:
                return scope.params
        return {}

    def together_in(self, scope_key: str) -> tuple[str, ...]:
        """The subjects that a schedule asks together; empty for an unknown key."""
        if not self.scheduled_predictions:
            return (
                () if self.questions else self.scope.together
            )  # no schedule is made here, since this is called for every score
        return next(
            (schedule.scope.together for schedule in self.schedules() if schedule.scope_key == scope_key), ()
        )

    def schedules(self) -> list[ScheduledPrediction]:
        """The active schedules, sorted by `order`; without any, one made from `scope`, unless questions are posted."""
        if not self.scheduled_predictions:
            if self.questions is not None:
                return []
            return [ScheduledPrediction(scope_key=f"{self.scope.horizon_seconds}s", scope=self.scope)]
        return sorted(
            (schedule for schedule in self.scheduled_predictions if schedule.active),
            key=lambda schedule: schedule.order,
        )


Contracts = Callable[[str], CrunchContract]
"""Gives the contract of a hash that terms name."""
