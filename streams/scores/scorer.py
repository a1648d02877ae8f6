"""One prediction through the contract: its output typed, scored, and the numbers of the score as integer units.

Pure. Made once for a contract, since most of the time of a score is the way in and out of the author's function.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.rounds import NoScore
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.events import Fault
from coordinator.streams.log.finite import numbers_of, plain
from coordinator.streams.scores.direct import direct_numbers
from coordinator.streams.scores.units import NotRecordableError, to_units

MODEL: Final[Fault] = "model"
NODE: Final[Fault] = "node"
NOBODY: Final[Fault] = "nobody"

ANSWERS_TRIED = 5

Scored = tuple[dict[str, int], str, Fault]
"""(units per numeric field, "", _) or ({}, reason, fault)."""


class Scorer:
    """A contract's scoring: `score_prediction` between its `output_type` and its `score_type`."""

    def __init__(self, contract: CrunchContract) -> None:
        self._as_output = validator(contract.output_type)
        self._as_result = validator(contract.score_type)
        self._score = contract.score_prediction
        self._direct = direct_numbers(contract.score_type)
        self._decimals = contract.score_decimals
        self._value_field = contract.aggregation.value_field
        self._output_type = contract.output_type

    def score(self, output: Any, truth: Any) -> Scored:
        """Score one recorded output against a typed truth. One prediction's failure stays its own."""
        try:
            result = self._score(self._as_output(output), truth)
            numbers = None if self._direct is None else self._direct.of(result)
            if numbers is None:
                if isinstance(result, NoScore):
                    return {}, result.reason or "score_prediction said NoScore", NOBODY
                fields = self._as_result(plain(result)).__dict__
                if not fields.get("success", True):
                    return (
                        {},
                        str(fields.get("failed_reason") or "score_prediction said success=False"),
                        MODEL,
                    )
                numbers = numbers_of(fields)
        except AUTHORS_ERRORS as error:
            return {}, f"score_prediction: {type(error).__name__}: {error}", NODE
        decimals = self._decimals
        try:
            units = {name: to_units(value, decimals) for name, value in numbers.items()}
        except NotRecordableError as error:
            return {}, str(error), NODE
        if self._value_field not in units:
            return {}, f"score_prediction gave no number for {self._value_field!r}", NODE
        return units, "", NODE

    def can_score(self, truth: Any) -> bool:
        """Does the function score any answer of the contract's type by this truth?"""
        others = answers_to_try(self._output_type)[:ANSWERS_TRIED]
        return any(self.score(recorded(one), truth)[0] for one in others)


@cache
def validator(model: type[BaseModel]) -> Any:
    """What `model.model_validate` does to one object, without its keyword arguments: half its time."""
    return TypeAdapter(model).validator.validate_python
