"""The arguments and the results of a contract's `score_round`, which scores a round of one scope as a whole.

The round scorer (`streams/scores/round_scorer.py`) makes the arguments from recorded answers, and records the results.
An author reads answers one by one (`for answer in answers`) or as numpy columns (`answers.column("value")`), and
returns scores one by one or as columns. Pure data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

AnswerState = Literal["answered", "absent", "failed"]
STATES: dict[str, AnswerState] = {"PENDING": "answered", "ABSENT": "absent", "FAILED": "failed"}
"""Status in the log -> status as an author sees it."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One model's answer."""

    model_id: str
    """The id of the model: `m1`."""
    player: str
    """The id of the cruncher who owns the model; the model's own id if the orchestrator names none."""
    status: AnswerState
    """answered, absent or failed."""
    fault: str
    """The fault of a missing answer: "model" or "node"; "" if there is an answer."""
    output: Any
    """An object of the contract's `output_type`; None unless `status` is answered."""


class RoundAnswers:
    """The answers of the n models that were asked in one scope of a round, in the order of model ids.

    The order does not depend on that in which the answers arrived, so neither does a score.
    """

    def __init__(
        self,
        models: list[str],
        crunchers: Sequence[str],
        missed: Mapping[int, tuple[str, str]],
        recorded: Sequence[bytes | msgspec.Raw],
        typed: Callable[[Any], Any],
    ) -> None:
        """`missed`: place -> (status in the log, fault) of each model without an answer. `recorded`: the answers as
        JSON, null for those models. `typed` converts decoded JSON to the `output_type`.
        """
        self.models = models
        """n model ids, ascending."""
        self._crunchers, self._missed, self._recorded, self._typed = crunchers, missed, recorded, typed

    # These are computed when they are first read: a function that reads numeric columns alone needs none of them.

    @functools.cached_property
    def players(self) -> list[str]:
        """The n player ids; a model's own id if no player is known."""
        return [player or model_id for player, model_id in zip(self._crunchers, self.models, strict=True)]

    @functools.cached_property
    def statuses(self) -> list[AnswerState]:
        """The n statuses: "answered", "absent" or "failed"."""
        statuses: list[AnswerState] = ["answered"] * len(self.models)
        for place, (status, _) in self._missed.items():
            statuses[place] = STATES[status]
        return statuses

    @functools.cached_property
    def faults(self) -> list[str]:
        """The n faults: "" (answered), "model" or "node"."""
        faults = [""] * len(self.models)
        for place, (_, fault) in self._missed.items():
            faults[place] = fault
        return faults

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Answer]:
        return map(Answer, self.models, self.players, self.statuses, self.faults, self.outputs)

    @functools.cached_property
    def outputs(self) -> list[Any]:
        """The n answers as the contract's `output_type`; None if there is none. They are typed when first read."""
        return [None if output is None else self._typed(output) for output in self._json(Any)]

    def column(self, name: str = "") -> Floats:
        """One numeric field of every answer as float64: shape (n,), NaN for a model without an answer.

        If the field is a list of k numbers in every answer (or lists of lists), the shape is (n, k, ..). Without a name
        it is the answer as a whole, for an `output_type` that is a list of numbers.
        Raises KeyError for a field that the answers do not have; ValueError for a field that is no number, or whose
        lists differ in length: then read `outputs`.
        """
        import numpy as np  # noqa: PLC0415 - contracts that score each prediction alone do not need it

        if name:
            # A field of plain numbers is decoded without making objects of the other fields. A field of another type
            # does not fit that decoder, and takes the general way.
            try:
                rows = self._json(_row_with(name))
            except msgspec.ValidationError:
                rows = self._json(Any)
                values = [None if row is None else row[name] for row in rows]
            else:
                return np.fromiter(
                    (np.nan if row is None else row.field for row in rows), np.float64, count=len(rows)
                )
        else:
            values = self._json(Any)
        first = next((value for value in values if value is not None), None)
        shape = np.shape(first) if first is not None else ()
        missing = np.full(shape, np.nan)
        return np.array([missing if value is None else value for value in values], dtype=np.float64).reshape(
            len(values), *shape
        )

    def answered(self) -> NDArray[Any]:
        """Shape (n,) of bool: True for a model with a valid answer."""
        import numpy as np  # noqa: PLC0415

        answered = np.ones(len(self.models), dtype=bool)
        answered[list(self._missed)] = False
        return answered

    def _json(self, kind: Any) -> list[Any]:
        return _rows_decoder(kind).decode(b"[" + b",".join(self._recorded) + b"]")


@functools.lru_cache(maxsize=256)
def _row_with(name: str) -> Any:
    """A type of row with one number. The decoder skips the other fields without making objects."""
    return msgspec.defstruct("Row", [("field", float)], rename={"field": name}, gc=False)


@functools.lru_cache(maxsize=256)
def _rows_decoder(kind: Any) -> msgspec.json.Decoder[list[Any]]:
    return msgspec.json.Decoder(list[kind | None] if kind is not Any else list[Any])


class Question(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The posted question of a round. Times: ms of event time."""

    round_id: str
    """The round of questions in which it was posted."""
    question_id: str
    """Its id in that round."""
    tags: list[str]
    """Its tags."""
    opens_at: int
    """When it was to be asked."""
    closes_at: int
    """When answers closed."""
    recorded: msgspec.Raw
    """`payload` as JSON."""

    @functools.cached_property
    def payload(self) -> Any:
        """What the models were shown when it was asked first. It is decoded when it is first read."""
        return msgspec.json.decode(self.recorded)


class RoundContext(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a round beside its answers, and the state that earlier rounds left. Times: ms of event time."""

    scope_key: str
    """The schedule that asked: `1h`; without schedules the horizon, `60s`."""
    subject: str
    """The subject of the predictions: `BTCUSDT`."""
    horizon_seconds: int
    """How far ahead the models predict."""
    step_seconds: int
    """The step that the models were told."""
    point: int
    """The time that the round is for."""
    resolvable_at: int
    """The end of its horizon: `point` plus the horizon."""
    params: Mapping[str, Any] = {}
    """The schedule's free arguments (`ScheduledPrediction.params`)."""
    states: Mapping[str, Any] = {}
    """model id -> the JSON value that an earlier round left for it, also of models that are not in this round."""
    shared: Any = None
    """The JSON value that an earlier round left for all models; None before the first."""
    question: Question | None = None
    """The posted question; None for a round of a schedule."""
    stakes: Mapping[str, float] = {}
    """model id -> its stake when the question closed, of the table that the operator posted."""


class Failed(msgspec.Struct, frozen=True):
    """In place of a score: the answer gets none, by its model's fault. `reason` is recorded and shown."""

    reason: str
    """What is wrong with the answer: `bad parameters`."""


class NoScore(msgspec.Struct, frozen=True):
    """In place of a score: there is none, by nobody's fault. For example, a model that has not traded has no profit.
    `reason` is recorded and shown.

    It costs the model nothing, and the round does not count in its participation. A model must not be able to choose it
    to avoid a bad score.
    """

    reason: str
    """What is missing: `has not traded yet`."""


class RoundScores(msgspec.Struct, frozen=True):
    """A result of `score_round` with more than scores: failures, and state for later rounds.

    `states` and `shared` are given to the next round of the same scope (`CrunchContract.state_scope`). They are JSON
    values of at most `state_max_bytes` each. Only changes are recorded. A model that is not named keeps its state; None
    removes it.
    """

    scores: Mapping[str, Any] | Sequence[Any]
    """The scores, in any form in which `score_round` may return them alone."""
    failed: Mapping[str, str] = {}
    """model id -> the reason why its answer gets no score, by its model's fault. If absence_policy is "scored", the
    number at its place in `scores` is the charge for that; otherwise that number is ignored.
    """
    no_score: Mapping[str, str] = {}
    """model id -> the reason why it has no score, by nobody's fault (`NoScore`). Its place in `scores` is ignored."""
    states: Mapping[str, Any] = {}
    """model id -> its new state: `{"m1": {"wealth": 1000.5}}`. None removes it."""
    shared: Any = msgspec.UNSET
    """The new state of all models together. If it is left out, the state stays."""
