"""Ensembles computed again from what the log says of them: the answer from its weights, the score from the answer.

Other code than the stage's, number by number. Whether the weights are those of the past is looked at by deciding the
stage again (`redo.py`), as are scores of rounds that are scored as a whole. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.audit.facts import Asked, Chain, Contracts, broken
from coordinator.streams.audit.scores import score_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import EnsemblesScoredData
from coordinator.streams.log.finite import is_number
from coordinator.streams.log.ids import ensemble_id


def check_ensembles(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """What was checked, as the end of a line; empty where the contract has no ensembles. Raises ChainBrokenError."""
    equal = 0
    for one, scope_key, horizon in rounds:
        contract = contracts(one.contract_hash)
        truth = chain.resolved[one.input_id, horizon][0].data.truth
        said = chain.ensembles.get((one.input_id, scope_key))
        place = f"input {one.input_id}, scope {scope_key}"
        asked = {answer.model_id: answer for answer in chain.answers_of(one.input_id, scope_key)}
        due = [name for each in contract.ensembles if (name := ensemble_id(each.name)) not in asked]
        if (said.models if said is not None else []) != (due if truth is not None else []):
            broken("scores", f"{place}: ensembles {said.models if said else []}, the contract has {due}")
        if said is None or truth is None:
            continue
        answers = {
            model_id: msgspec.json.decode(answer.output)
            for model_id, answer in sorted(asked.items())
            if answer.status == "PENDING"
        }
        if said.answered != list(answers):
            broken("scores", f"{place}: its ensembles are of {said.answered}, answered have {list(answers)}")
        for entry in said.entries():
            if entry.status == "SCORED":
                equal += 1
                _check(
                    said, entry.model_id, answers, contract, typed_truth(contract, scope_key, truth), place
                )
    return f", {equal} of ensembles" if equal else ""


def _check(
    said: EnsemblesScoredData,
    model_id: str,
    answers: Mapping[str, Any],
    contract: CrunchContract,
    truth: Any,
    place: str,
) -> None:
    at = said.models.index(model_id)
    members = [
        (answers[name], weight)
        for name, weight in zip(said.answered, said.weights[at], strict=True)
        if weight
    ]
    whole = sum(weight for _, weight in members)
    ensemble = next(one for one in contract.ensembles if ensemble_id(one.name) == model_id)
    output = msgspec.json.decode(said.outputs[at])
    if ensemble.combine is None:
        again = _mean(members, whole)
        if again != output:
            broken("scores", f"{place}, {model_id}: its answer is {output}, its weights give {again}")
    if contract.score_round is not None:
        return
    units = {name: column[at] for name, column in said.units.items() if column[at] is not None}
    try:
        by_contract = score_again(contract, output, truth)
    except AUTHORS_ERRORS as error:
        broken("scores", f"{place}, {model_id}: recorded are {units}, the contract raises {error}")
    if by_contract != units:
        broken("scores", f"{place}, {model_id}: recorded are {units}, the contract gives {by_contract}")


def _mean(members: Sequence[tuple[Any, int]], whole: int) -> Any:
    """The weighted mean of values of one form."""
    first = members[0][0]
    if is_number(first):
        total = 0.0
        for value, weight in members:
            total += weight / whole * value
        return total
    if isinstance(first, dict):
        return {key: _mean([(value[key], weight) for value, weight in members], whole) for key in first}
    if isinstance(first, list):
        each = zip(*(value for value, _ in members), strict=True)
        weights = [weight for _, weight in members]
        return [_mean(list(zip(row, weights, strict=True)), whole) for row in each]
    return first
