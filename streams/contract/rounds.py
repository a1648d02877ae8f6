"""What a contract's `score_round` is given and what it may give: a round of one scope, scored as a whole.

Pure data. An author reads answers one by one (`for answer in answers`) or as numpy columns (`answers.column("value")`),
and gives scores one by one or as columns.
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
"""How an author reads the statuses of the log."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One model's answer."""

    model_id: str
    """Whose it is: `m1`."""
    player: str
    """The cruncher whose model it is; the model's own id where the orchestrator does not say."""
    status: AnswerState
    """answered, absent or failed."""
    fault: str
    """Whose fault a missing answer is: "model" or "node"; empty where there is an answer."""
    output: Any
    """Of the contract's `output_type`; None unless `status` is answered."""


class RoundAnswers:
    """Every model that was asked in one scope of a round, in the order of model ids: n of them.

    Whatever the order in which answers came, this order is the same, so that a score never depends on it.
    """

    def __init__(
        self,
        models: list[str],
        crunchers: Sequence[str],
        missed: Mapping[int, tuple[str, str]],
        recorded: Sequence[bytes | msgspec.Raw],
        typed: Callable[[Any], Any],
    ) -> None:
        """`missed` is place -> (status of the log, fault) of who has no answer; `recorded` is JSON, null for those."""
        self.models = models
        """n model ids, ascending."""
        self._crunchers, self._missed, self._recorded, self._typed = crunchers, missed, recorded, typed

    # Made at the first reading: a score of numbers alone needs none of them.

    @functools.cached_property
    def players(self) -> list[str]:
        """N player ids; a model's own id where no player is known."""
        return [player or model_id for player, model_id in zip(self._crunchers, self.models, strict=True)]

    @functools.cached_property
    def statuses(self) -> list[AnswerState]:
        """N of "answered", "absent", "failed"."""
        statuses: list[AnswerState] = ["answered"] * len(self.models)
        for place, (status, _) in self._missed.items():
            statuses[place] = STATES[status]
        return statuses

    @functools.cached_property
    def faults(self) -> list[str]:
        """N of "" (answered), "model", "node"."""
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
        """N answers of the contract's `output_type`; None where there is none. Typed at the first reading."""
        return [None if one is None else self._typed(one) for one in self._json(Any)]

    def column(self, name: str = "") -> Floats:
        """One numeric field of every answer as float64: shape (n,), NaN where a model has none.

        A field that is a list of k numbers in every answer (or lists of lists) gives shape (n, k, ..). Without a name
        it is the answer as a whole, for an `output_type` that is a list of numbers.
        Raises KeyError for a field that no answer has; ValueError for one that is no number, or whose lists differ in
        length: read `outputs` then.
        """
        import numpy as np  # noqa: PLC0415 - contracts that score each prediction alone need none of it

        if name:
            try:
                rows = self._json(_row_with(name))
            except msgspec.ValidationError:
                rows = self._json(Any)
                values = [None if one is None else one[name] for one in rows]
            else:
                return np.fromiter(
                    (np.nan if one is None else one.field for one in rows), np.float64, count=len(rows)
                )
        else:
            values = self._json(Any)
        usual = next((one for one in values if one is not None), None)
        shape = np.shape(usual) if usual is not None else ()
        missing = np.full(shape, np.nan)
        return np.array([missing if one is None else one for one in values], dtype=np.float64).reshape(
            len(values), *shape
        )

    def answered(self) -> NDArray[Any]:
        """Shape (n,) of bool: who gave a valid answer."""
        import numpy as np  # noqa: PLC0415

        answered = np.ones(len(self.models), dtype=bool)
        answered[list(self._missed)] = False
        return answered

    def _json(self, kind: Any) -> list[Any]:
        return _rows_decoder(kind).decode(b"[" + b",".join(self._recorded) + b"]")


@functools.lru_cache(maxsize=256)
def _row_with(name: str) -> Any:
    """A row of which only one number is read. The others' JSON is passed over without making objects."""
    return msgspec.defstruct("Row", [("field", float)], rename={"field": name}, gc=False)


@functools.lru_cache(maxsize=256)
def _rows_decoder(kind: Any) -> msgspec.json.Decoder[list[Any]]:
    return msgspec.json.Decoder(list[kind | None] if kind is not Any else list[Any])


class RoundContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a round is about beside its answers, and the state that earlier rounds left. Times are ms of event time."""

    scope_key: str
    """Which schedule asked: `1h`; without schedules the horizon, `60s`."""
    subject: str
    """What is predicted: `BTCUSDT`."""
    horizon_seconds: int
    """How far ahead."""
    step_seconds: int
    """The step that the models were told."""
    point: int
    """When it was asked."""
    resolvable_at: int
    """When its horizon ended: `point` plus the horizon."""
    params: Mapping[str, Any] = {}
    """The schedule's free arguments (`ScheduledPrediction.params`)."""
    states: Mapping[str, Any] = {}
    """model id -> the JSON value that an earlier round left for it; of models that are not in this round too."""
    shared: Any = None
    """The JSON value that an earlier round left for all; None before the first one."""


class Failed(msgspec.Struct, frozen=True):
    """Instead of a score: this answer deserves none, by its model's fault. `reason` is recorded and shown."""

    reason: str
    """What an answer of this kind lacks: `bad parameters`."""


class NoScore(msgspec.Struct, frozen=True):
    """Instead of a score: there is none, by nobody's fault; who never traded has no profit. `reason` is recorded and
    shown.

    It costs nothing, and the round does not count in the participation of this model. A model must not be able to
    choose it where its score would be a bad one.
    """

    reason: str
    """What is missing: `has not traded yet`."""


class RoundScores(msgspec.Struct, frozen=True):
    """What `score_round` may give where scores alone are not enough.

    `states` and `shared` stand for the next round of the same scope (`CrunchContract.state_scope`): JSON values, each
    of at most `state_max_bytes`. Only what differs from before is recorded; a model that is not named keeps its state,
    None forgets it.
    """

    scores: Mapping[str, Any] | Sequence[Any]
    """As `score_round` gives them without this."""
    failed: Mapping[str, str] = {}
    """model id -> why its answer deserves no score, by its model's fault. Where absence_policy is "scored", what stands
    at its place in `scores` is what that costs; else it is not looked at."""
    no_score: Mapping[str, str] = {}
    """model id -> why it has no score, by nobody's fault (`NoScore`). Its place in `scores` is not looked at."""
    states: Mapping[str, Any] = {}
    """model id -> its state from now on: `{"m1": {"wealth": 1000.5}}`. None forgets it."""
    shared: Any = msgspec.UNSET
    """The state of all from now on. Left out, it stays."""
