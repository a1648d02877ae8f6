"""A whole round of one scope through the contract's `score_round`: answers in, columns of units and carried state out.

Pure. Models are in the order of their ids, whatever the order in which they answered: sums of floats depend on order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.rounds import (
    Failed,
    NoScore,
    RoundAnswers,
    RoundContext,
    RoundScores,
)
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.events import NO_OUTPUT, Fault, RosterEntry, ScopeAnsweredData, Unscored
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.scorer import ANSWERS_TRIED, MODEL, NOBODY, NODE, validator
from coordinator.streams.scores.units import NotRecordableError, column_to_units, to_units

_encoder = msgspec.json.Encoder(order="deterministic")
FORGOTTEN = msgspec.Raw(b"null")
NO_SCORE = "score_round said NoScore"


class Asked(msgspec.Struct, frozen=True):
    """Who was asked in a scope and what each answered, in the order of model ids; columns of n."""

    models: list[str]
    crunchers: list[str]
    outputs: list[msgspec.Raw]
    missed: dict[int, tuple[Any, Fault]]
    """Place -> (status, fault) of who has no valid answer."""


def asked_in(parts: Iterable[ScopeAnsweredData], roster: Sequence[RosterEntry]) -> Asked:
    """The answers of one scope, put in order. Raises IndexError for a model that is not on the roster."""
    known = list(parts)
    if len(known) == 1:
        (data,) = known
        models = [roster[index].model_id for index in data.models]
        if models == sorted(models):  # as a rule: a roster is in the order of ids, and a round in one part
            crunchers = [roster[index].cruncher_id for index in data.models]
            missing = {one.place: (one.status, one.fault) for one in data.unanswered}
            return Asked(models, crunchers, data.outputs, missing)
    rows: list[tuple[str, str, msgspec.Raw, Any, Fault]] = []
    for data in known:
        unanswered = {one.place: one for one in data.unanswered}
        for place, (index, output) in enumerate(zip(data.models, data.outputs, strict=True)):
            entry, missed = roster[index], unanswered.get(place)
            if missed is None:
                rows.append((entry.model_id, entry.cruncher_id, output, None, NODE))
            else:
                rows.append((entry.model_id, entry.cruncher_id, NO_OUTPUT, missed.status, missed.fault))
    rows.sort(key=lambda row: row[0])
    return Asked(
        models=[row[0] for row in rows],
        crunchers=[row[1] for row in rows],
        outputs=[row[2] for row in rows],
        missed={i: (row[3], row[4]) for i, row in enumerate(rows) if row[3] is not None},
    )


class Carried(msgspec.Struct):
    """The state that rounds of one holder left, as JSON."""

    states: dict[str, msgspec.Raw] = {}
    shared: msgspec.Raw = FORGOTTEN

    def take(self, states: Mapping[str, msgspec.Raw], shared: Sequence[msgspec.Raw]) -> None:
        """Take in what a round changed."""
        for model_id, state in states.items():
            if bytes(state) == b"null":
                self.states.pop(model_id, None)
            else:
                self.states[model_id] = state
        if shared:
            self.shared = shared[0]

    def given(self) -> dict[str, Any]:
        """As `RoundContext` takes it: new objects each time, which a function may change without harm."""
        return {
            "states": {model_id: msgspec.json.decode(one) for model_id, one in sorted(self.states.items())},
            "shared": msgspec.json.decode(self.shared),
        }


def holder_of(contract: CrunchContract, subject: str, scope_key: str) -> str:
    """Which rounds share their state with those of a scope (`StateCarriedData.holder`)."""
    return "" if contract.state_scope == "all" else f"{subject}/{scope_key}"


class RoundOutcome(msgspec.Struct, frozen=True):
    """A round scored: the columns of its RoundScored without charges, and what of the state changed."""

    units: dict[str, list[int | None]]
    unscored: dict[int, tuple[Any, Fault, str]]
    """Place -> (status, fault, reason); the reason is empty where the answer is what was missing."""
    charges: dict[int, int]
    """Place -> what the function gave for an answer that is missing, or that it failed, in units of the value field."""
    states: dict[str, msgspec.Raw] = {}
    shared: list[msgspec.Raw] = []
    raised: bool = False
    """The function made no round of it: nobody is scored, and no answer is to blame."""


class RoundScorer:
    """A contract's `score_round` between its `output_type` and its `score_type`."""

    def __init__(self, contract: CrunchContract) -> None:
        if contract.score_round is None:
            message = "the contract scores each prediction alone"
            raise ValueError(message)
        self._function = contract.score_round
        self._typed = validator(contract.output_type)
        self._as_result = validator(contract.score_type)
        self._output_type = contract.output_type
        fields = contract.score_type.model_fields
        self._fields = frozenset(fields)
        self._required = frozenset(
            {name for name, one in fields.items() if one.is_required()} | {contract.aggregation.value_field}
        )
        self._open = contract.score_type.model_config.get("extra") == "allow"
        self._decimals = contract.score_decimals
        self._value_field = contract.aggregation.value_field
        self._state_bytes_max = contract.state_max_bytes

    def score(self, asked: Asked, truth: Any, context: RoundContext, before: Carried) -> RoundOutcome:
        """Score one round. A function that raises, or gives what is no score of n models, fails it for everybody who
        answered, by the node's fault, and leaves the state as it was.
        """
        outcome = self._scored(asked, truth, context, before)
        by_node = [place for place, (_, fault, why) in outcome.unscored.items() if why and fault == NODE]
        scored = len(outcome.unscored) < len(asked.models)
        if not by_node or outcome.raised or not (scored or self._can_score(asked, truth, context, before)):
            return outcome
        # It scored another answer by the same truth: an absurd answer must not be a way out of a round.
        blamed = {
            place: (*outcome.unscored[place][:1], MODEL, outcome.unscored[place][2]) for place in by_node
        }
        return msgspec.structs.replace(outcome, unscored={**outcome.unscored, **blamed})

    def failed(self, asked: Asked, reason: str) -> RoundOutcome:
        """Nobody who answered has a score, by the node's fault."""
        unscored = {
            place: (*asked.missed[place], "")
            if place in asked.missed
            else ("FAILED", NODE, as_reason(reason))
            for place in range(len(asked.models))
        }
        return RoundOutcome({}, unscored, {}, raised=True)

    def _scored(self, asked: Asked, truth: Any, context: RoundContext, before: Carried) -> RoundOutcome:
        n, missed = len(asked.models), asked.missed
        # A list of its own: the function may change it.
        answers = RoundAnswers(list(asked.models), asked.crunchers, missed, asked.outputs, self._typed)
        try:
            said = self._function(answers, truth, context)
            given = said if isinstance(said, RoundScores) else RoundScores(said)
            named = given.failed or given.no_score or given.states
            places = {model_id: place for place, model_id in enumerate(asked.models)} if named else {}
            failed: dict[int, tuple[Fault, str]] = {
                places[model_id]: (MODEL, str(why)) for model_id, why in given.failed.items()
            }
            for model_id, why in given.no_score.items():
                failed.setdefault(places[model_id], (NOBODY, str(why) or NO_SCORE))
            units = self._units(given.scores, n, failed, missed)
            states = self._changed(given.states, places, before, failed)
            shared = None if given.shared is msgspec.UNSET else self._state("shared", given.shared)
        except AUTHORS_ERRORS as error:
            return self.failed(asked, f"score_round: {type(error).__name__}: {error}")
        values = units.get(self._value_field) or [None] * n
        charges: dict[int, int] = {}
        unscored: dict[int, tuple[Any, Fault, str]] = {}
        if failed or missed or None in values:
            for place, value in enumerate(values):
                if place in missed:
                    unscored[place] = (*missed[place], "")
                    if value is not None and place not in failed:
                        charges[place] = value
                elif place in failed:
                    unscored[place] = ("FAILED", failed[place][0], as_reason(failed[place][1]))
                    if value is not None and asked.models[place] in given.failed:
                        charges[place] = value
                elif value is None:
                    unscored[place] = (
                        "FAILED",
                        NODE,
                        f"score_round gave no number for {self._value_field!r}",
                    )
            for column in units.values():
                for place in unscored:
                    column[place] = None
        changed = [shared] if shared is not None and bytes(shared) != bytes(before.shared) else []
        return RoundOutcome(units, unscored, charges, states, changed)

    # --- what the function gave ------------------------------------------------------------------------------

    def _units(
        self, scores: Any, n: int, failed: dict[int, tuple[Fault, str]], missed: Mapping[int, Any]
    ) -> dict[str, list[int | None]]:
        """Columns of units; whoever's number cannot be recorded is put into `failed`. Raises what makes no round."""
        if isinstance(scores, Mapping):
            self._check_names(scores)
            columns = {str(name): column_to_units(values, self._decimals) for name, values in scores.items()}
            for name, (column, faults) in columns.items():
                if len(column) != n:
                    message = f"{n} models were asked, and {name!r} has {len(column)} values"
                    raise ValueError(message)
                for place, why in faults.items():
                    if place not in missed:
                        failed.setdefault(place, (NODE, why))
            return {name: column for name, (column, _) in columns.items()}
        each = list(scores)
        if len(each) != n:
            message = f"{n} models were asked, and there are {len(each)} scores"
            raise ValueError(message)
        units: dict[str, list[int | None]] = {}
        for place, one in enumerate(each):
            fault, why = NODE, ""
            try:
                fault, why = self._one(plain(one), place, n, units)
            except NotRecordableError as error:
                why = str(error)
            if why:
                failed.setdefault(place, (fault, why))
        return units

    def _one(self, one: Any, place: int, n: int, units: dict[str, list[int | None]]) -> tuple[Fault, str]:
        """Put one model's score into the columns; or (fault, why it has none)."""
        if one is None:
            return NODE, ""
        if isinstance(one, Failed):
            return MODEL, one.reason or "score_round said Failed"
        if isinstance(one, NoScore):
            return NOBODY, one.reason or NO_SCORE
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            one = {self._value_field: one}
        fields = self._as_result(one).__dict__
        if not fields.get("success", True):
            return MODEL, str(fields.get("failed_reason") or "score_round said success=False")
        for name, value in numbers_of(fields).items():
            recordable = to_units(value, self._decimals)
            units.setdefault(name, [None] * n)[place] = recordable
        return NODE, ""

    def _check_names(self, scores: Mapping[str, Any]) -> None:
        names = scores.keys()
        if not names >= self._required or not (self._open or names <= self._fields):
            message = f"columns {list(scores)} do not make a score_type of {sorted(self._fields)}"
            raise ValueError(message)

    def _changed(
        self,
        states: Mapping[str, Any],
        places: Mapping[str, int],
        before: Carried,
        failed: dict[int, tuple[Fault, str]],
    ) -> dict[str, msgspec.Raw]:
        """What of the states is another than before. A model whose state cannot be recorded fails and keeps its own."""
        changed: dict[str, msgspec.Raw] = {}
        for model_id in sorted(states):
            if model_id not in places and model_id not in before.states:
                message = f"a state for {model_id!r}, who was not asked and has none"
                raise ValueError(message)
            try:
                now = self._state(model_id, states[model_id])
            except (ValueError, TypeError, RecursionError) as error:
                if model_id not in places:
                    raise
                failed.setdefault(places[model_id], (NODE, str(error)))
                continue
            if bytes(now) != bytes(before.states.get(model_id, FORGOTTEN)):
                changed[model_id] = now
        return changed

    def _state(self, whose: str, value: Any) -> msgspec.Raw:
        """A state as it is recorded. Raises ValueError, TypeError or RecursionError for what cannot be."""
        state = plain(value)
        if bad := not_finite(state):
            message = f"the state of {whose}: {bad} is not finite"
            raise ValueError(message)
        recorded_state = _encoder.encode(state)
        if len(recorded_state) > self._state_bytes_max:
            size, most = len(recorded_state), self._state_bytes_max
            message = f"the state of {whose} has {size} bytes, state_max_bytes is {most}"
            raise ValueError(message)
        return msgspec.Raw(recorded_state)

    def _can_score(self, asked: Asked, truth: Any, context: RoundContext, before: Carried) -> bool:
        """Does the function score any other answers of the contract's type, in the same round?"""
        for answer in answers_to_try(self._output_type)[:ANSWERS_TRIED]:
            output = msgspec.Raw(msgspec.json.encode(recorded(answer)))
            others = msgspec.structs.replace(asked, outputs=[output] * len(asked.models), missed={})
            if len(self._scored(others, truth, context, before).unscored) < len(asked.models):
                return True
        return False


def columns_of(asked: Asked, outcome: RoundOutcome, charges: Mapping[int, int]) -> dict[str, Any]:
    """The columns of RoundScoredData: `RoundScoredData(.., **columns_of(..))`."""
    reasons: dict[str, int] = {}
    return {
        "models": asked.models,
        "crunchers": asked.crunchers if any(asked.crunchers) else [],
        "units": {
            name: column for name, column in outcome.units.items() if any(u is not None for u in column)
        },
        "unscored": [
            Unscored(
                place,
                status,
                fault,
                charges.get(place),
                reasons.setdefault(why, len(reasons)) if why else None,
            )
            for place, (status, fault, why) in sorted(outcome.unscored.items())
        ],
        "reasons": list(reasons),
    }
