"""Scores a whole round of one scope by the contract's `score_round`.

Reads the recorded answers, the ground truth and the state that earlier rounds left. Returns columns of integer units,
the models without a score, and what changed of the state. Pure. Models are in the order of their ids and not in the
order of their answers: a sum of floats depends on the order, and every machine must get the same one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.rounds import (
    Failed,
    NoScore,
    RoundAnswers,
    RoundContext,
    RoundScores,
)
from coordinator.streams.contract.trial_answers import answers_to_try
from coordinator.streams.contract.types import validator
from coordinator.streams.events import NO_OUTPUT, Fault, RosterEntry, ScopeAnsweredData, Unscored
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.raised_rounds import Places, scorable_places
from coordinator.streams.scores.scorer import ANSWERS_TRIED, MODEL, NOBODY, NODE, as_given, tried
from coordinator.streams.scores.units import NotRecordableError, column_to_units, to_units

_encoder = msgspec.json.Encoder(order="deterministic")
FORGOTTEN = msgspec.Raw(b"null")
NO_SCORE = "score_round said NoScore"
UnscoredPlaces = dict[int, tuple[Any, Fault, str]]
"""Place in the columns -> (status, fault, reason) of each model without a score. The reason is empty if the answer
itself was missing."""


class AskedModels(msgspec.Struct, frozen=True):
    """The models that were asked in a scope, and their answers: columns of n, in the order of model ids."""

    models: list[str]
    crunchers: list[str]
    outputs: list[msgspec.Raw]
    missed: dict[int, tuple[Any, Fault]]
    """Place in the columns -> (status, fault), for each model without a valid answer."""


def asked_in(parts: Iterable[ScopeAnsweredData], roster: Sequence[RosterEntry]) -> AskedModels:
    """The answers of one scope, sorted by model id. Raises IndexError for a model that is not on the roster."""
    answered = list(parts)
    if len(answered) == 1:
        (data,) = answered
        models = [roster[index].model_id for index in data.models]
        if models == sorted(models):  # the usual case: a roster is sorted by id, and a round has one part
            crunchers = [roster[index].cruncher_id for index in data.models]
            missed_at = {missed.place: (missed.status, missed.fault) for missed in data.unanswered}
            return AskedModels(models, crunchers, data.outputs, missed_at)
    rows: list[tuple[str, str, msgspec.Raw, Any, Fault]] = []
    for data in answered:
        unanswered = {missed.place: missed for missed in data.unanswered}
        for place, (index, output) in enumerate(zip(data.models, data.outputs, strict=True)):
            entry, missed = roster[index], unanswered.get(place)
            if missed is None:
                rows.append((entry.model_id, entry.cruncher_id, output, None, NODE))
            else:
                rows.append((entry.model_id, entry.cruncher_id, NO_OUTPUT, missed.status, missed.fault))
    rows.sort(key=lambda row: row[0])
    return AskedModels(
        models=[row[0] for row in rows],
        crunchers=[row[1] for row in rows],
        outputs=[row[2] for row in rows],
        missed={i: (row[3], row[4]) for i, row in enumerate(rows) if row[3] is not None},
    )


class Carried(msgspec.Struct):
    """The state that the rounds of one holder (`holder_of`) left, as JSON."""

    states: dict[str, msgspec.Raw] = {}
    shared: msgspec.Raw = FORGOTTEN

    def take(self, states: Mapping[str, msgspec.Raw], shared: Sequence[msgspec.Raw]) -> None:
        """Apply the changes of one round. The state `null` removes that of a model."""
        for model_id, state in states.items():
            if bytes(state) == b"null":
                self.states.pop(model_id, None)
            else:
                self.states[model_id] = state
        if shared:
            self.shared = shared[0]

    def given(self) -> dict[str, Any]:
        """The state as arguments of `RoundContext`. The objects are new each time: the function may change them."""
        return {
            "states": {
                model_id: msgspec.json.decode(state) for model_id, state in sorted(self.states.items())
            },
            "shared": msgspec.json.decode(self.shared),
        }


def holder_of(contract: CrunchContract, subject: str, scope_key: str) -> str:
    """The holder of the state that a scope's rounds share (`StateCarriedData.holder`): "" if all scopes share one."""
    return "" if contract.state_scope == "all" else f"{subject}/{scope_key}"


class RoundOutcome(msgspec.Struct, frozen=True):
    """The result of one round: the columns of its RoundScored without charges, and the states that changed."""

    units: dict[str, list[int | None]]
    unscored: UnscoredPlaces
    charges: dict[int, int]
    """Place -> the number that the function returned for a missing or failed answer, in units of the value field."""
    states: dict[str, msgspec.Raw] = {}
    shared: list[msgspec.Raw] = []
    raised: bool = False
    """True: the function raised or returned no valid scores. Then no model is scored, and no answer is to blame."""


class RoundScorer:
    """Calls a contract's `score_round`: with answers of its `output_type`, for results of its `score_type`."""

    def __init__(self, contract: CrunchContract, *, histories: bool = False, blames: bool = True) -> None:
        """`histories`: as for `Scorer`. `blames`: where the function raises, the answers that it cannot score are
        sought, and the others are scored without them.
        """
        if contract.score_round is None:
            message = "the contract scores each prediction alone"
            raise ValueError(message)
        self._function = contract.score_round
        self._typed = as_given if histories else validator(contract.output_type)
        self._histories, self._blames = histories, blames
        self._as_result = validator(contract.score_type)
        self._output_type = contract.output_type
        fields = contract.score_type.model_fields
        self._fields = frozenset(fields)
        self._required = frozenset(
            {name for name, field in fields.items() if field.is_required()}
            | {contract.aggregation.value_field}
        )
        self._open = contract.score_type.model_config.get("extra") == "allow"
        self._decimals = contract.score_decimals
        self._value_field = contract.aggregation.value_field
        self._state_bytes_max = contract.state_max_bytes

    def score(self, asked: AskedModels, truth: Any, context: RoundContext, before: Carried) -> RoundOutcome:
        """Score one round.

        If the function raises, or does not return scores of n models, the answers that it cannot score fail by their
        models' fault, and the others are scored without them. If it is not clear which ones these are, every model that
        answered fails by the node's fault, and the state stays as it was.
        """
        outcome = self._scored(asked, truth, context, before)
        if outcome.raised and self._blames:
            outcome = self._without_unscorable(asked, truth, context, before, outcome)
        by_node = [place for place, (_, fault, why) in outcome.unscored.items() if why and fault == NODE]
        scored = len(outcome.unscored) < len(asked.models)
        if not by_node or outcome.raised or not (scored or self._can_score(asked, truth, context, before)):
            return outcome
        # The function scored another answer by the same truth, so these answers are what it could not score. They fail
        # by their models' fault. Otherwise a model could escape a bad round by an absurd answer.
        blamed = {
            place: (*outcome.unscored[place][:1], MODEL, outcome.unscored[place][2]) for place in by_node
        }
        return msgspec.structs.replace(outcome, unscored={**outcome.unscored, **blamed})

    def _without_unscorable(
        self, asked: AskedModels, truth: Any, context: RoundContext, before: Carried, outcome: RoundOutcome
    ) -> RoundOutcome:
        """The round without the answers that the function cannot score; `outcome` if it is not clear which ones."""
        answered = [place for place in range(len(asked.models)) if place not in asked.missed]

        def scored(places: Places, output: msgspec.Raw | None = None) -> RoundOutcome:
            return self._again(_with_only(asked, places, output), truth, context, before)

        def scores_same(place: int | None) -> bool:
            same = self._samples() if place is None else [asked.outputs[place]]
            return any(not scored(answered, output).raised for output in same)

        places = scorable_places(asked.outputs, answered, lambda some: not scored(some).raised, scores_same)
        if places is None:
            return outcome
        reasons = {place: outcome.unscored[place][2] for place in answered if place not in places}
        blamed = {place: ("FAILED", MODEL, reason) for place, reason in reasons.items()}
        rest = scored(places)
        return msgspec.structs.replace(rest, unscored={**rest.unscored, **blamed}, raised=False)

    def failed(self, asked: AskedModels, reason: str) -> RoundOutcome:
        """The outcome in which every model that answered fails by the node's fault."""
        unscored = {
            place: (*asked.missed[place], "")
            if place in asked.missed
            else ("FAILED", NODE, as_reason(reason))
            for place in range(len(asked.models))
        }
        return RoundOutcome({}, unscored, {}, raised=True)

    def _again(self, asked: AskedModels, truth: Any, context: RoundContext, before: Carried) -> RoundOutcome:
        """As `_scored`, with the state that the round began with: the function may have changed what it was given."""
        return self._scored(asked, truth, msgspec.structs.replace(context, **before.given()), before)

    def _scored(self, asked: AskedModels, truth: Any, context: RoundContext, before: Carried) -> RoundOutcome:
        n, missed = len(asked.models), asked.missed
        # A copy of the ids: the function may change the list that it gets.
        answers = RoundAnswers(list(asked.models), asked.crunchers, missed, asked.outputs, self._typed)
        try:
            returned = self._function(answers, truth, context)
            result = returned if isinstance(returned, RoundScores) else RoundScores(returned)
            named = result.failed or result.no_score or result.states
            places = {model_id: place for place, model_id in enumerate(asked.models)} if named else {}
            # `failed` comes first, and everything later only fills in (`setdefault`): a model that the function fails
            # is not excused by what else it says of the model, nor by a number that cannot be recorded.
            failed: dict[int, tuple[Fault, str]] = {
                places[model_id]: (MODEL, str(why)) for model_id, why in result.failed.items()
            }
            for model_id, why in result.no_score.items():
                failed.setdefault(places[model_id], (NOBODY, str(why) or NO_SCORE))
            units = self._units(result.scores, n, failed, missed)
            states = self._changed(result.states, places, before, failed)
            shared = None if result.shared is msgspec.UNSET else self._state("shared", result.shared)
        except AUTHORS_ERRORS as error:
            return self.failed(asked, f"score_round: {in_words(error)}")
        values = units.get(self._value_field) or [None] * n
        unscored, charges = UnscoredPlaces(), dict[int, int]()
        # In the usual round every model has a score, and the loop over the models is not needed.
        if failed or missed or None in values:
            unscored, charges = self._without_score(asked, values, failed, result.failed.keys())
            # No field of a model without a score may enter a sum.
            for column in units.values():
                for place in unscored:
                    column[place] = None
        # Only a change is recorded: a state that stays the same would be in the log of every round.
        changed = [shared] if shared is not None and bytes(shared) != bytes(before.shared) else []
        return RoundOutcome(units, unscored, charges, states, changed)

    def _without_score(
        self,
        asked: AskedModels,
        values: Sequence[int | None],
        failed: Mapping[int, tuple[Fault, str]],
        blamed: Container[str],
    ) -> tuple[UnscoredPlaces, dict[int, int]]:
        """(place -> why the model has no score, place -> the units that this costs it).

        Only models that the function itself failed (`blamed`) are charged for a failure: a number beside `no_score` is
        of nobody's fault and costs nobody.
        """
        unscored, charges = UnscoredPlaces(), dict[int, int]()
        for place, value in enumerate(values):
            charged = False
            if place in asked.missed:
                unscored[place] = (*asked.missed[place], "")
                charged = (
                    place not in failed
                )  # the contract may charge a missing answer (absence_policy "scored")
            elif place in failed:
                fault, why = failed[place]
                unscored[place] = ("FAILED", fault, as_reason(why))
                charged = asked.models[place] in blamed
            elif value is None:
                why = f"score_round gave no number for {self._value_field!r}"
                unscored[place] = ("FAILED", NODE, why)
            if charged and value is not None:
                charges[place] = value
        return unscored, charges

    # --- what the function returned ------------------------------------------------------------------------------

    def _units(
        self, scores: Any, n: int, failed: dict[int, tuple[Fault, str]], missed: Mapping[int, Any]
    ) -> dict[str, list[int | None]]:
        """Columns of units. A model whose number cannot be recorded is added to `failed`. Raises if there are not n
        scores, or if they are not of the score_type.
        """
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
        rows = list(scores)
        if len(rows) != n:
            message = f"{n} models were asked, and there are {len(rows)} scores"
            raise ValueError(message)
        units: dict[str, list[int | None]] = {}
        for place, score in enumerate(rows):
            fault, why = NODE, ""
            try:
                fault, why = self._put_score(plain(score), place, n, units)
            except NotRecordableError as error:
                why = str(error)
            if why:
                failed.setdefault(place, (fault, why))
        return units

    def _put_score(
        self, score: Any, place: int, n: int, units: dict[str, list[int | None]]
    ) -> tuple[Fault, str]:
        """Put the score of one model into the columns. Returns (fault, why it has none); the reason is empty if it has
        one, or if the function returned None.
        """
        if score is None:
            return NODE, ""
        if isinstance(score, Failed):
            return MODEL, score.reason or "score_round said Failed"
        if isinstance(score, NoScore):
            return NOBODY, score.reason or NO_SCORE
        if isinstance(score, (int, float)) and not isinstance(score, bool):
            score = {self._value_field: score}
        fields = self._as_result(score).__dict__
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
        """The states that differ from those before. A model whose new state cannot be recorded fails, and keeps the old
        one.
        """
        changed: dict[str, msgspec.Raw] = {}
        for model_id in sorted(states):
            if model_id not in places and model_id not in before.states:
                message = f"a state for {model_id!r}, who was not asked and has none"
                raise ValueError(message)
            try:
                state = self._state(model_id, states[model_id])
            except (ValueError, TypeError, RecursionError) as error:
                if model_id not in places:
                    raise
                failed.setdefault(places[model_id], (NODE, str(error)))
                continue
            if bytes(state) != bytes(before.states.get(model_id, FORGOTTEN)):
                changed[model_id] = state
        return changed

    def _state(self, whose: str, value: Any) -> msgspec.Raw:
        """A state as JSON for the log. Raises ValueError, TypeError or RecursionError if it cannot be recorded."""
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

    def _can_score(self, asked: AskedModels, truth: Any, context: RoundContext, before: Carried) -> bool:
        """True if the function scores any other answer of the contract's type in the same round."""
        n = len(asked.models)
        others = (
            msgspec.structs.replace(asked, outputs=[output] * n, missed={}) for output in self._samples()
        )
        return any(len(self._again(other, truth, context, before).unscored) < n for other in others)

    def _samples(self) -> Iterator[msgspec.Raw]:
        """Some answers of the contract's type."""
        for answer in answers_to_try(self._output_type)[:ANSWERS_TRIED]:
            yield msgspec.Raw(msgspec.json.encode(tried(answer, histories=self._histories)))


def _with_only(asked: AskedModels, places: Places, output: msgspec.Raw | None) -> AskedModels:
    """The round with the answers at these places, or with `output` there. Each other model that answered failed."""
    failed = dict.fromkeys(set(range(len(asked.models))).difference(places), ("FAILED", MODEL))
    outputs = [NO_OUTPUT if place in failed else output or own for place, own in enumerate(asked.outputs)]
    return msgspec.structs.replace(asked, outputs=outputs, missed=failed | asked.missed)


def columns_of(asked: AskedModels, outcome: RoundOutcome, charges: Mapping[int, int]) -> dict[str, Any]:
    """The columns of RoundScoredData: `RoundScoredData(.., **columns_of(..))`. `charges`: place -> units.

    Equal reasons are recorded once, and each unscored model has the index of its reason.
    """
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
