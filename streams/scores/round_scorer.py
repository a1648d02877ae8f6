"""Scores a whole round of one scope by the contract's `score_round`.

Reads the recorded answers, the ground truth and the state that earlier rounds left. Returns columns of integer units,
the models without a score, and what changed of the state. Pure. Models are in the order of their ids and not in the
order of their answers: a sum of floats depends on the order, and every machine must get the same one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
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
from coordinator.streams.events import Fault
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.carried import FORGOTTEN, Carried
from coordinator.streams.scores.raised_rounds import Places, scorable_places
from coordinator.streams.scores.round_columns import AskedModels, RoundOutcome, UnscoredPlaces, with_only
from coordinator.streams.scores.scorer import ANSWERS_TRIED, MODEL, NOBODY, NODE, as_given, tried
from coordinator.streams.scores.units import NotRecordableError, column_to_units, to_units

_encoder = msgspec.json.Encoder(order="deterministic")
NO_SCORE = "score_round said NoScore"


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
            return self._again(with_only(asked, places, output), truth, context, before)

        def scores_same(place: int | None) -> bool:
            same = self._samples() if place is None else [asked.outputs[place]]
            return any(not scored(answered, output).raised for output in same)

        places = scorable_places(asked.outputs, answered, lambda some: not scored(some).raised, scores_same)
        if places is None:
            return outcome
        left_out = set(answered).difference(places)
        blamed = {place: ("FAILED", MODEL, outcome.unscored[place][2]) for place in sorted(left_out)}
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
