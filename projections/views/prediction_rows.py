"""The rows of the read model of predictions, and how the two halves of a prediction are joined.

`predictions.py` folds and reads them. Answers and scores come from different topics, in any order, so each half has
rows of its own and a reader joins them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from coordinator.streams.events import AnswerEntry, InputReceivedData, Unscored, units_of
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.lifecycle import PREDICTION, advance

COUNTED = ("pending", "scored", "no_score", "failed", "absent")
"""How predictions are counted. `no_score` is an answer without a score by nobody's fault; in the log it is FAILED with
the fault `nobody`.
"""


class ScoresRow(msgspec.Struct, frozen=True, array_like=True):
    """The scores half of a round and scope: the columns of its RoundScored."""

    at: int
    resolvable_at: int
    contract_hash: str
    models: list[str]
    units: dict[str, list[int | None]]
    unscored: list[Unscored]
    reasons: list[str]

    def by_model(self, model_ids: set[str] | None = None) -> dict[str, Score]:
        """The score of each model, or of `model_ids` only."""
        unscored = {entry.model: entry for entry in self.unscored}
        score_of_model: dict[str, Score] = {}
        for i, model_id in enumerate(self.models):
            if model_ids is not None and model_id not in model_ids:
                continue
            unscored_entry = unscored.get(i)
            if unscored_entry is None:
                score_of_model[model_id] = Score("scored", units_of(self.units, i), "", None, self.at, None)
            elif unscored_entry.reason is None:
                score_of_model[model_id] = Score("", None, "", None, None, unscored_entry.charge_units)
            else:
                reason = self.reasons[unscored_entry.reason]
                score_of_model[model_id] = Score(
                    "scoring-failed", None, reason, unscored_entry.fault, self.at, unscored_entry.charge_units
                )
        return score_of_model


class Score(NamedTuple):
    """A model's half from `scores`. `move` is the lifecycle's transition, empty if the prediction was never PENDING."""

    move: str
    units: dict[str, int] | None
    reason: str
    fault: str | None
    at: int | None
    charge_units: int | None


class InputRow(msgspec.Struct, kw_only=True):
    """An input without its payload, which is in the log alone. `truths` is horizon_seconds as text -> [truth, reason];
    `scopes` is scope_key -> (horizon in s, step in s, resolvable_at in ms).
    """

    subject: str
    point: int
    deadline_at: int
    contract_hash: str
    rehearsal: bool
    scopes: dict[str, tuple[int, int, int]]
    status: str = "RECEIVED"
    truths: dict[str, tuple[dict[str, Any] | None, str | None]] = {}


class StateRow(msgspec.Struct, frozen=True, array_like=True):
    """What a model carries from round to round, as JSON, and the round that left it."""

    at: int
    input_id: str
    subject: str
    scope_key: str
    holder: str
    state: msgspec.Raw


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction, joined. `score_units` only when SCORED; `resolvable_at` and horizons where known."""

    input_id: str
    scope_key: str
    model_id: str
    deployment_id: str
    status: str
    performed_at: int
    exec_time_us: int
    output: Any
    reason: str
    fault: str | None
    subject: str
    horizon_seconds: int | None
    step_seconds: int | None
    resolvable_at: int | None
    scored_at: int | None
    score_units: dict[str, int] | None
    charge_units: int | None
    decimals: int
    value_field: str = "value"
    opened_at: int = 0
    hidden: bool = False
    """`output` is None because others could still copy it."""
    output_bytes: int | None = None
    """How large an answer is that is in the log alone: then `output` is None."""
    state: msgspec.Raw | None = None
    """JSON of what the round left as its model's carried state, where it changed it."""

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Where it stands in the list of all, newest round first."""
        return (self.opened_at, self.input_id, self.scope_key, self.model_id)


def join(at: int, answer: AnswerEntry, score: Score | None, *, closed: bool, **rest: Any) -> Prediction:
    """A prediction from its answer, which was recorded at `at` (ms), and its score. `rest` are the fields that all
    models of the round share. `closed` hides the answer of a prediction that is PENDING, since others could still copy
    it.
    """
    status: str = answer.status
    reason = answer.reason
    fault: str | None = answer.fault
    output = msgspec.json.decode(answer.output) if status == "PENDING" else None
    units: dict[str, int] | None = None
    scored_at: int | None = None
    moved = score is not None and bool(score.move)
    if score is not None and moved:
        try:
            status = advance(PREDICTION, status, score.move)
        except IllegalTransitionError:
            moved = False  # the prediction was never PENDING, so its own ending stands
    if score is not None and moved:
        units, scored_at = score.units, score.at
        if status == "FAILED":
            reason, fault = score.reason, score.fault
    hidden = closed and status == "PENDING"
    return Prediction(
        model_id=answer.model_id,
        deployment_id=answer.deployment_id,
        status=status,
        performed_at=at,
        exec_time_us=answer.exec_time_us,
        output=None if hidden else output,
        hidden=hidden,
        reason=reason,
        fault=fault,
        scored_at=scored_at,
        score_units=units,
        charge_units=score.charge_units if score is not None else None,
        **rest,
    )


def input_row(data: InputReceivedData) -> InputRow:
    """The row of an input as it was received."""
    return InputRow(
        subject=data.subject,
        point=data.point,
        deadline_at=data.deadline_at,
        contract_hash=data.contract_hash,
        rehearsal=data.rehearsal,
        scopes={
            scope.scope_key: (scope.horizon_seconds, scope.step_seconds, scope.resolvable_at)
            for scope in data.scopes
        },
    )
