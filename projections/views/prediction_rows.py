"""The rows of the read model of predictions, and how the two halves of a prediction are joined.

`predictions.py` folds and reads them. Answers and scores come from different topics, in any order, so each half has
rows of its own and a reader joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from coordinator.projections.folding.projection import key
from coordinator.projections.storage.store import Store
from coordinator.streams.events import (
    AnswerEntry,
    InputReceivedData,
    InputResolvedData,
    RosterEntry,
    RoundScoredData,
    ScoreColumns,
    Unscored,
    units_of,
)
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.ids import is_question
from coordinator.streams.log.lifecycle import PREDICTION, advance
from coordinator.streams.log.reasons import without_quotes

COUNTED = ("pending", "scored", "replaced", "no_score", "failed", "absent")
"""How predictions are counted. `no_score` is an answer without a score by nobody's fault; in the log it is FAILED with
the fault `nobody`. `replaced` is an answer to a posted question that a later one of its model replaced.
"""


def totals_of(counted: Callable[[str, str], int]) -> dict[str, int]:
    """Counts of predictions as in `COUNTED`, and of inputs `received, resolved`. `counted`: (topic, name) -> count."""
    scored, no_score = counted("scores", "scored"), counted("scores", "no_score")
    broken, replaced = counted("scores", "scoring_failed"), counted("scores", "replaced")
    return {
        # A score may be folded before its prediction: never count below nothing.
        "pending": max(0, counted("predictions", "recorded") - scored - no_score - broken - replaced),
        "scored": scored,
        "replaced": replaced,
        "no_score": no_score,
        "failed": counted("predictions", "failed") + broken,
        "absent": counted("predictions", "absent"),
        **{name: counted("inputs", name) for name in ("received", "resolved")},
    }


_roster_decoder = msgspec.msgpack.Decoder(list[RosterEntry])
_large_decoder = msgspec.msgpack.Decoder(dict[str, int])
RESOLVED = "RESOLVED"
"""The status of an input whose truths are all known."""


class ScoresRow(msgspec.Struct, frozen=True, array_like=True):
    """The scores half of a round and scope: the columns of its RoundScored."""

    at: int
    resolvable_at: int
    contract_hash: str
    models: list[str]
    units: dict[str, list[int | None]]
    unscored: list[Unscored]
    reasons: list[str]
    rounds: list[str] = []
    replaced: dict[str, list[int]] = {}
    merged: dict[str, list[int]] = {}
    earlier: list[ScoreColumns] = []
    """The columns before each correction of the truth of a posted question."""

    @classmethod
    def of(cls, at: int, data: RoundScoredData, before: ScoresRow | None = None) -> ScoresRow:
        """The row of a scored round. `before`: what a corrected truth replaces."""
        earlier: list[ScoreColumns] = []
        if before is not None:
            replaced = ScoreColumns(
                models=before.models, units=before.units, unscored=before.unscored, reasons=before.reasons
            )
            earlier = [*before.earlier, replaced]
        return cls(
            at, data.resolvable_at, data.contract_hash, data.models, data.units, data.unscored, data.reasons,
            data.rounds, data.replaced, data.merged, earlier,
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """How many predictions it ends, by how they end; an answer that was missing has ended before."""
        faults = {entry.model: entry.fault for entry in self.unscored if entry.reason is not None}
        missed = {entry.model for entry in self.unscored if entry.reason is None}
        ended = [*range(len(self.models)), *(i for indices in self.merged.values() for i in indices)]
        no_score = sum(faults.get(i) == "nobody" for i in ended)
        failed = sum(i in faults for i in ended) - no_score
        scored = sum(i not in missed for i in ended) - failed - no_score
        replaced = sum(map(len, self.replaced.values()))
        return {"scored": scored, "no_score": no_score, "scoring_failed": failed, "replaced": replaced}

    def by_model(self, model_ids: set[str] | None = None, suffix: str = "") -> dict[str, Score]:
        """The score of each model, or of `model_ids` only. `suffix`: in which round of a posted question."""
        unscored = {entry.model: entry for entry in self.unscored}
        score_of_model: dict[str, Score] = {}
        replaced, merged = self.replaced.get(suffix, ()), self.merged.get(suffix, ())
        for i, model_id in enumerate(self.models):
            if model_ids is not None and model_id not in model_ids:
                continue
            if i in replaced:
                score_of_model[model_id] = Score("replaced", None, "", None, self.at, None)
                continue
            if i not in merged and suffix != (self.rounds[i] if self.rounds else ""):
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
    earlier: list[tuple[dict[str, Any] | None, str | None]] = []
    """The truths of a posted question that were corrected, the first one first."""
    is_question: bool = False
    is_closed: bool = False
    """A posted question takes no more answers."""

    def takes_answers(self, scope_key: str, resolved_until: int) -> bool:
        """Whether a scope of the round may still be answered, so that answers could be copied. `resolved_until`: ms.

        A posted question may be closed early, and its time to close may be moved: it is answered until it is closed.
        """
        horizon, _, resolvable_at = self.scopes[scope_key]
        is_open = self.is_question and not self.is_closed
        return str(horizon) not in self.truths and (is_open or resolvable_at >= resolved_until)

    def close(self, at: int) -> None:
        """From `at` (ms) on, a posted question takes no more answers."""
        self.is_closed = True
        self.scopes = {key: (horizon, step, at) for key, (horizon, step, _) in self.scopes.items()}

    def resolve(self, data: InputResolvedData) -> bool:
        """Take a truth in, where it is the first of its horizon, or corrects that of a posted question."""
        horizon = str(data.horizon_seconds)
        if self.status != "RECEIVED" and not (data.revision and horizon in self.truths):
            return False
        if data.revision and horizon in self.truths:
            self.earlier = [*self.earlier, self.truths[horizon]]
        self.truths = {**self.truths, horizon: (data.truth, data.reason)}
        if data.last:
            self.status = RESOLVED
        return True


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
    question_open: bool = False
    """Answers to its question could still be copied: no answer in this or another of its rounds is shown."""
    output_bytes: int | None = None
    """How large an answer is that is in the log alone: then `output` is None."""
    state: msgspec.Raw | None = None
    """JSON of what the round left as its model's carried state, where it changed it."""

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Its place in the list of all predictions, newest round first."""
        return (self.opened_at, self.input_id, self.scope_key, self.model_id)


def join(at: int, answer: AnswerEntry, score: Score | None, *, closed: bool, **rest: Any) -> Prediction:
    """A prediction from its answer, which was recorded at `at` (ms), and its score. `rest` are the fields that all
    models of the round share. `closed` hides the answer of a prediction that is PENDING, since others could still copy
    it; and to a posted question also what a FAILED one quotes, since others may still answer.
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
    question_open = closed and is_question(rest["input_id"])
    if question_open and status == "FAILED":
        reason = without_quotes(reason)
    return Prediction(
        model_id=answer.model_id,
        deployment_id=answer.deployment_id,
        status=status,
        performed_at=at,
        exec_time_us=answer.exec_time_us,
        output=None if hidden else output,
        hidden=hidden,
        question_open=question_open,
        reason=reason,
        fault=fault,
        scored_at=scored_at,
        score_units=units,
        charge_units=score.charge_units if score is not None else None,
        **rest,
    )


def large_of(store: Store, input_id: str, scope_key: str) -> dict[str, int]:
    """Model -> the bytes of its answer in a round, where that is in the log alone."""
    row = store.get(b"G" + key(input_id, scope_key))
    if row is None:
        return {}
    asked = store.get(b"R" + key(input_id))
    roster = _roster_decoder.decode(asked) if asked else []
    sizes = _large_decoder.decode(row).items()
    return {roster[int(index)].model_id: size for index, size in sizes if int(index) < len(roster)}


def input_row(data: InputReceivedData) -> InputRow:
    """The row of an input as it was received."""
    return InputRow(
        subject=data.subject,
        point=data.point,
        deadline_at=data.deadline_at,
        contract_hash=data.contract_hash,
        rehearsal=data.rehearsal,
        is_question=data.question is not None,
        scopes={
            scope.scope_key: (scope.horizon_seconds, scope.step_seconds, scope.resolvable_at)
            for scope in data.scopes
        },
    )
