"""Combines the contract's ensembles in one scope of a resolved round, and scores each as if it were one more model.

Pure. Each ensemble is scored separately. If the contract scores rounds as a whole, it is scored in a round with the
models and itself, and only its own score is used. If the contract's code raises, or returns no valid answer, that
ensemble fails.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract, Ensemble
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.trial_answers import recorded
from coordinator.streams.contract.types import validator
from coordinator.streams.events import NO_OUTPUT, Fault, ScoreEntry, in_columns, units_of
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.ids import ensemble_id
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.ensemble_rules import NoMemberError, members_of, weighted_mean, weights_of
from coordinator.streams.scores.past_scores import NOTHING, PastSums
from coordinator.streams.scores.round_columns import AskedModels
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer
from coordinator.streams.scores.whole_rounds import ResolvedScope


class Scored(msgspec.Struct, frozen=True):
    """The score of an ensemble's answer: field -> units, or the reason why it has none; and its state, if that
    changed.
    """

    units: dict[str, int]
    reason: str = ""
    fault: Fault = NODE
    state: msgspec.Raw | None = None


class ScoresAnswer(Protocol):
    """A function that scores an ensemble's answer in this round."""

    def __call__(self, asked: AskedModels, model_id: str, output: msgspec.Raw) -> Scored: ...


class Combined(msgspec.Struct):
    """One ensemble's answer as JSON, or the reason why it has none."""

    weights: list[int | None] = []
    """The weight of each model that answered, in the order of the round; None if it is no member."""
    output: msgspec.Raw = NO_OUTPUT
    reason: str = ""


class EnsembleScorer:
    """Combines and scores the ensembles of a contract."""

    def __init__(self, contract: CrunchContract) -> None:
        self._contract = contract
        self._typed = validator(contract.output_type)

    def columns(
        self, asked: AskedModels, past: Mapping[str, PastSums], score: ScoresAnswer
    ) -> dict[str, Any] | None:
        """The columns of EnsemblesScoredData; None if there is no ensemble. `past`: name of the ensemble -> past
        scores.

        If a model of the round has the id of an ensemble, the round has no such ensemble.
        """
        combined_of = self.combined(asked, past)
        if not combined_of:
            return None
        entries: list[ScoreEntry] = []
        states: dict[str, msgspec.Raw] = {}
        for name, combined in combined_of.items():
            model_id = ensemble_id(name)
            scored = (
                Scored({}, combined.reason) if combined.reason else score(asked, model_id, combined.output)
            )
            if scored.reason:
                entries.append(ScoreEntry(model_id, "FAILED", scored.fault, reason=as_reason(scored.reason)))
            else:
                entries.append(ScoreEntry(model_id, "SCORED", units=scored.units))
            if scored.state is not None:
                states[model_id] = scored.state
        return {
            **in_columns(entries),
            "answered": [
                model_id for place, model_id in enumerate(asked.models) if place not in asked.missed
            ],
            "weights": [combined.weights for combined in combined_of.values()],
            "outputs": [combined.output for combined in combined_of.values()],
            "states": states,
        }

    def combined(self, asked: AskedModels, past: Mapping[str, PastSums]) -> dict[str, Combined]:
        """Name of the ensemble -> its combined answer, without ensembles that have the id of a model of the round."""
        answered = [place for place in range(len(asked.models)) if place not in asked.missed]
        outputs = [msgspec.json.decode(asked.outputs[place]) for place in answered]
        return {
            ensemble.name: self._combined(
                ensemble, asked, answered, outputs, past.get(ensemble.name, NOTHING)
            )
            for ensemble in self._contract.ensembles
            if ensemble_id(ensemble.name) not in asked.models
        }

    def _combined(
        self,
        ensemble: Ensemble,
        asked: AskedModels,
        answered: Sequence[int],
        outputs: Sequence[Any],
        past: PastSums,
    ) -> Combined:
        contract, combined = self._contract, Combined()
        decimals = contract.score_decimals
        # Functions of the author get typed answers. Each ensemble gets new ones, because a function may change them.
        is_typed = any(callable(rule) for rule in (ensemble.weights, ensemble.filter, ensemble.combine))
        try:
            present = [
                past.member(
                    asked.models[place],
                    asked.crunchers[place] or asked.models[place],
                    self._typed(output) if is_typed else None,
                    ensemble.error_field,
                    10.0**-decimals,
                )
                for place, output in zip(answered, outputs, strict=True)
            ]
            members = members_of(ensemble, present, contract.aggregation.ranking_direction.value)
            weights = weights_of(ensemble, members, 10.0**-decimals)
            weight_of = {
                member.model_id: weight for member, weight in zip(members, weights, strict=True) if weight
            }
            combined.weights = [weight_of.get(asked.models[place]) for place in answered]
            # The shares follow from the recorded weights, which are rounded, so that an audit gets the same answer.
            weight_sum = sum(weight_of.values())
            shares = [weight / weight_sum for weight in weight_of.values()]
            if ensemble.combine is None:
                output_of = dict(zip((asked.models[place] for place in answered), outputs, strict=True))
                answer = weighted_mean([output_of[model_id] for model_id in weight_of], shares)
            else:
                typed_outputs = [member.output for member in members if member.model_id in weight_of]
                answer = ensemble.combine(typed_outputs, shares)
            combined.output = self._recorded(answer)
        except NoMemberError as error:
            combined.reason = as_reason(f"ensemble {ensemble.name}: {error}")
        except AUTHORS_ERRORS as error:
            combined.reason = as_reason(f"ensemble {ensemble.name}: {in_words(error)}")
        return combined

    def _recorded(self, answer: Any) -> msgspec.Raw:
        """An answer as JSON for the log. Raises ValueError (also pydantic's) or TypeError if it is not valid."""
        output = recorded(answer) if isinstance(answer, BaseModel) else plain(answer)
        if bad := not_finite(output):
            raise ValueError(f"{bad} of its answer is not finite")
        self._typed(output)
        body = msgspec.json.encode(output)
        if len(body) > self._contract.output_max_bytes:
            raise ValueError(
                f"its answer has {len(body)} bytes, output_max_bytes is {self._contract.output_max_bytes}"
            )
        return msgspec.Raw(body)


def score_alone(scorer: Scorer, truth: Any, asked: AskedModels, model_id: str, output: msgspec.Raw) -> Scored:  # noqa: ARG001
    """Score an ensemble's answer with `score_prediction`."""
    units, reason, fault = scorer.score(msgspec.json.decode(output), truth)
    return Scored(units, reason, _of_no_model(fault))


def score_beside(
    scorer: RoundScorer, contract: CrunchContract, what: ResolvedScope, before: Carried, own: Carried
) -> ScoresAnswer:
    """Scores an ensemble's answer with `score_round`, in a round of the models and this ensemble.

    `before`: the state with which the round began. `own`: the states of the ensembles; each one gets its own together
    with those of the models, and none of another ensemble. The scores of the models and the shared state that come out
    of this round are discarded.
    """

    def score(asked: AskedModels, model_id: str, output: msgspec.Raw) -> Scored:
        place = bisect_left(asked.models, model_id)
        beside = AskedModels(
            models=[*asked.models[:place], model_id, *asked.models[place:]],
            crunchers=[*asked.crunchers[:place], "", *asked.crunchers[place:]],
            outputs=[*asked.outputs[:place], output, *asked.outputs[place:]],
            missed={at + (at >= place): missed for at, missed in asked.missed.items()},
        )
        state = own.states.get(model_id)
        states = before.states if state is None else before.states | {model_id: state}
        began = Carried(states, before.shared)
        outcome = scorer.score(beside, what.truth, what.context(contract, began), began)
        _, fault, reason = outcome.unscored.get(place, ("", NODE, ""))
        return Scored(
            units_of(outcome.units, place), reason, _of_no_model(fault), outcome.states.get(model_id)
        )

    return score


def _of_no_model(fault: Fault) -> Fault:
    """The fault of an ensemble's failure: no model gave the answer, so it is never a model's."""
    return NODE if fault == MODEL else fault
