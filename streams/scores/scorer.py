"""Scores one prediction by the contract's `score_prediction`.

Reads a recorded output and the ground truth. Returns the numbers of the score in integer units, or the reason and the
fault why there is none. Pure. A scorer is made once for a contract: validating what goes into the author's function and
comes out of it takes most of the time of a score.
"""

from __future__ import annotations

from typing import Any, Final

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.rounds import NoScore
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.contract.types import validator
from coordinator.streams.events import Fault
from coordinator.streams.log.finite import numbers_of, plain
from coordinator.streams.scores.direct_numbers import direct_numbers
from coordinator.streams.scores.units import NotRecordableError, to_units

MODEL: Final[Fault] = "model"
NODE: Final[Fault] = "node"
NOBODY: Final[Fault] = "nobody"

ANSWERS_TRIED = 5
"""How many other answers are scored to find out whether the answer or the function is at fault."""

Scored = tuple[dict[str, int], str, Fault]
"""(units per numeric field, "", _) or ({}, reason, fault)."""


class Scorer:
    """Calls a contract's `score_prediction`: with an answer of its `output_type`, for a result of its `score_type`."""

    def __init__(self, contract: CrunchContract, *, histories: bool = False) -> None:
        """`histories`: all answers of a model with their times are scored (`Questions.counts`), unchanged."""
        self._as_output = as_given if histories else validator(contract.output_type)
        self._histories = histories
        self._as_result = validator(contract.score_type)
        self._score = contract.score_prediction
        self._direct = direct_numbers(contract.score_type)
        self._decimals = contract.score_decimals
        self._value_field = contract.aggregation.value_field
        self._output_type = contract.output_type

    def score(self, output: Any, truth: Any) -> Scored:
        """Score one recorded output against a typed truth. An error of the author's function is returned, not raised,
        so it fails this prediction alone.
        """
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
            return {}, f"score_prediction: {in_words(error)}", NODE
        decimals = self._decimals
        try:
            units = {name: to_units(value, decimals) for name, value in numbers.items()}
        except NotRecordableError as error:
            return {}, str(error), NODE
        if self._value_field not in units:
            return {}, f"score_prediction gave no number for {self._value_field!r}", NODE
        return units, "", NODE

    def can_score(self, truth: Any) -> bool:
        """True if the function scores any answer of the contract's type by this truth."""
        others = answers_to_try(self._output_type)[:ANSWERS_TRIED]
        return any(self.score(tried(answer, histories=self._histories), truth)[0] for answer in others)


def as_given(output: Any) -> Any:
    """Returns the output unchanged."""
    return output


def tried(answer: Any, *, histories: bool) -> Any:
    """An answer of the contract's type as it would be recorded, or all of a model that gave it once."""
    output = recorded(answer)
    if not histories:
        return output
    return {"answers": [{"at": 0, "output": output}], "opens_at": 0, "closes_at": 1}
