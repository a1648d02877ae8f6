"""The contract's ensembles in one scope of a resolved round: combined, and scored as one more model would be.

Pure. Each is scored alone: where the contract scores rounds as a whole, in a round with the ensemble beside the models,
of which its own score alone is taken. What the contract raises, or gives that is no answer, fails that ensemble.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract, Ensemble
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.trial_answers import recorded
from coordinator.streams.events import NO_OUTPUT, Fault, ScoreEntry, in_columns, units_of
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.ids import ensemble_id
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.ensemble_rules import NoMemberError, members_of, weighted_mean, weights_of
from coordinator.streams.scores.past_scores import NOTHING, PastSums
from coordinator.streams.scores.round_scorer import Asked, Carried, RoundScorer
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer, validator
from coordinator.streams.scores.whole_rounds import ResolvedScope


class Scored(msgspec.Struct, frozen=True):
    """What a contract gives for an ensemble's answer: units by field, or a reason; and its state, where it changed."""

    units: dict[str, int]
    reason: str = ""
    fault: Fault = NODE
    state: msgspec.Raw | None = None


class ScoresAnswer(Protocol):
    """How an ensemble's answer is scored in this round."""

    def __call__(self, asked: Asked, model_id: str, output: msgspec.Raw) -> Scored: ...


class Combined(msgspec.Struct):
    """One ensemble's answer: what each of the `answered` weighs, its JSON, or why there is none."""

    weights: list[int | None] = []
    output: msgspec.Raw = NO_OUTPUT
    reason: str = ""


class EnsembleScorer:
    """A contract's ensembles."""

    def __init__(self, contract: CrunchContract) -> None:
        self._contract = contract
        self._typed = validator(contract.output_type)

    def columns(
        self, asked: Asked, past: Mapping[str, PastSums], score: ScoresAnswer
    ) -> dict[str, Any] | None:
        """The columns of EnsemblesScoredData; None where there is no ensemble. `past` is by ensemble's name.

        A model that has an ensemble's id stands in its place: there is no such ensemble in this round.
        """
        made = self.combined(asked, past)
        if not made:
            return None
        entries: list[ScoreEntry] = []
        states: dict[str, msgspec.Raw] = {}
        for name, combined in made.items():
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
            "weights": [one.weights for one in made.values()],
            "outputs": [one.output for one in made.values()],
            "states": states,
        }

    def combined(self, asked: Asked, past: Mapping[str, PastSums]) -> dict[str, Combined]:
        """Ensemble's name -> what it makes of the answers; none that has the id of a model of the round."""
        answered = [place for place in range(len(asked.models)) if place not in asked.missed]
        outputs = [msgspec.json.decode(asked.outputs[place]) for place in answered]
        return {
            one.name: self._combined(one, asked, answered, outputs, past.get(one.name, NOTHING))
            for one in self._contract.ensembles
            if ensemble_id(one.name) not in asked.models
        }

    def _combined(
        self,
        ensemble: Ensemble,
        asked: Asked,
        answered: Sequence[int],
        outputs: Sequence[Any],
        past: PastSums,
    ) -> Combined:
        contract, combined = self._contract, Combined()
        decimals = contract.score_decimals
        # Typed where a function of the contract's own is to look at them, and for each anew: it may change them.
        own = [ensemble.weights, ensemble.filter, ensemble.combine]
        typed = any(callable(one) for one in own)
        try:
            present = [
                past.member(
                    asked.models[place],
                    asked.crunchers[place] or asked.models[place],
                    self._typed(output) if typed else None,
                    ensemble.error_field,
                    10.0**-decimals,
                )
                for place, output in zip(answered, outputs, strict=True)
            ]
            members = members_of(ensemble, present, contract.aggregation.ranking_direction.value)
            weights = weights_of(ensemble, members, 10.0**-decimals)
            of_member = {one.model_id: weight for one, weight in zip(members, weights, strict=True) if weight}
            combined.weights = [of_member.get(asked.models[place]) for place in answered]
            whole = sum(of_member.values())
            shares = [weight / whole for weight in of_member.values()]
            if ensemble.combine is None:
                output_of = dict(zip((asked.models[place] for place in answered), outputs, strict=True))
                said = weighted_mean([output_of[model_id] for model_id in of_member], shares)
            else:
                said = ensemble.combine([one.output for one in members if one.model_id in of_member], shares)
            combined.output = self._recorded(said)
        except NoMemberError as error:
            combined.reason = as_reason(f"ensemble {ensemble.name}: {error}")
        except AUTHORS_ERRORS as error:
            combined.reason = as_reason(f"ensemble {ensemble.name}: {type(error).__name__}: {error}")
        return combined

    def _recorded(self, said: Any) -> msgspec.Raw:
        """An answer as the log has it. Raises ValueError (pydantic's too) or TypeError for what is none."""
        output = recorded(said) if isinstance(said, BaseModel) else plain(said)
        if bad := not_finite(output):
            raise ValueError(f"{bad} of its answer is not finite")
        self._typed(output)
        body = msgspec.json.encode(output)
        if len(body) > self._contract.output_max_bytes:
            raise ValueError(
                f"its answer has {len(body)} bytes, output_max_bytes is {self._contract.output_max_bytes}"
            )
        return msgspec.Raw(body)


def score_alone(scorer: Scorer, truth: Any, asked: Asked, model_id: str, output: msgspec.Raw) -> Scored:  # noqa: ARG001
    """The answer by `score_prediction`."""
    units, reason, fault = scorer.score(msgspec.json.decode(output), truth)
    return Scored(units, reason, _of_no_model(fault))


def score_beside(
    scorer: RoundScorer,
    contract: CrunchContract,
    what: ResolvedScope,
    before: Carried,
    own: Carried,
    asked: Asked,
    model_id: str,
    output: msgspec.Raw,
) -> Scored:
    """The answer by `score_round`, in the round as it was with this one beside the models.

    `before` is the state that the round began with, `own` that of the ensembles: each is given its own beside the
    models', and no other ensemble's. What becomes of the models and of the shared state here is nobody's.
    """
    place = bisect_left(asked.models, model_id)
    beside = Asked(
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
    return Scored(units_of(outcome.units, place), reason, _of_no_model(fault), outcome.states.get(model_id))


def _of_no_model(fault: Fault) -> Fault:
    """An answer that no model gave is no model's fault."""
    return NODE if fault == MODEL else fault
