"""Computes the recorded ensembles again: their answers from the recorded weights, their scores from the answers.

Reads a `Chain`; returns text, or raises ChainBrokenError. Pure. Two things are left to the stage, which decides again
(`redo.py`): whether past scores give these weights, and the scores of rounds that are scored as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Asked, Chain, broken
from coordinator.streams.audit.scores import score_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import EnsemblesScoredData
from coordinator.streams.log.finite import is_number
from coordinator.streams.log.ids import ensemble_id


def check_ensembles(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Check every ensemble of the rounds. Returns the end of a line of text; "" if there are none."""
    equal_count = 0
    for input_data, scope_key, horizon in rounds:
        contract = contracts(input_data.contract_hash)
        truth = chain.truth_of(input_data.input_id, scope_key, horizon)
        recorded = chain.ensembles.get((input_data.input_id, scope_key))
        place = f"input {input_data.input_id}, scope {scope_key}"
        asked = {answer.model_id: answer for answer in chain.answers_of(input_data.input_id, scope_key)}
        # A participant's model that has the id of an ensemble takes its place in that round.
        names = [name for ensemble in contract.ensembles if (name := ensemble_id(ensemble.name)) not in asked]
        if (recorded.models if recorded is not None else []) != (names if truth is not None else []):
            broken(
                "scores",
                f"{place}: ensembles {recorded.models if recorded else []}, the contract has {names}",
            )
        if recorded is None or truth is None:
            continue
        answers = {
            model_id: msgspec.json.decode(answer.output)
            for model_id, answer in sorted(asked.items())
            if answer.status == "PENDING"
        }
        if recorded.answered != list(answers):
            broken(
                "scores", f"{place}: its ensembles are of {recorded.answered}, answered have {list(answers)}"
            )
        scored_truth = typed_truth(contract, scope_key, truth)
        for entry in recorded.entries():
            if entry.status == "SCORED":
                equal_count += 1
                _check(chain, recorded, entry.model_id, answers, contract, scored_truth, place)
    return f", {equal_count} of ensembles" if equal_count else ""


def _check(
    chain: Chain,
    recorded: EnsemblesScoredData,
    model_id: str,
    answers: Mapping[str, Any],
    contract: CrunchContract,
    truth: Any,
    place: str,
) -> None:
    """Check the answer and the score of one ensemble in one scope of a round."""
    index = recorded.models.index(model_id)
    members = [
        (answers[name], weight)
        for name, weight in zip(recorded.answered, recorded.weights[index], strict=True)
        if weight
    ]
    weight_sum = sum(weight for _, weight in members)
    ensemble = next(ensemble for ensemble in contract.ensembles if ensemble_id(ensemble.name) == model_id)
    output = msgspec.json.decode(recorded.outputs[index])
    if (
        ensemble.combine is None
    ):  # else the contract's own function made the answer, which `redo.py` calls again
        mean = mean_again(members, weight_sum)
        if mean != output:
            broken("scores", f"{place}, {model_id}: its answer is {output}, its weights give {mean}")
    if contract.score_round is not None:
        return
    units = {field: column[index] for field, column in recorded.units.items() if column[index] is not None}
    try:
        by_contract = score_again(contract, output, truth)
    except AUTHORS_ERRORS as error:
        broken("scores", f"{place}, {model_id}: recorded are {units}, the contract raises {error}")
    if not chain.roundings.near(f"the score of {place}, {model_id}", units, by_contract, model_id):
        broken("scores", f"{place}, {model_id}: {difference(units, by_contract, 'the contract gives')}")


def mean_again(members: Sequence[tuple[Any, int]], weight_sum: int) -> Any:
    """The weighted mean of (value, weight), number by number; all values have the same shape.

    What is no number (a text) is that of the first. The numbers are added in the order of the members, as the stage
    does: another order could give another last digit.
    """
    first = members[0][0]
    if is_number(first):
        total = 0.0
        for value, weight in members:
            total += weight / weight_sum * value
        return total
    if isinstance(first, dict):
        return {
            key: mean_again([(value[key], weight) for value, weight in members], weight_sum) for key in first
        }
    if isinstance(first, list):
        rows = zip(*(value for value, _ in members), strict=True)
        weights = [weight for _, weight in members]
        return [mean_again(list(zip(row, weights, strict=True)), weight_sum) for row in rows]
    return first
