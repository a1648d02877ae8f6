"""Applies a function to a value of one scope, or to that of each subject if the contract asks several together.

Reads a contract and a value of a scope, such as a recorded ground truth, and returns the value typed. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordinator.streams.contract.contract import CrunchContract
from coordinator.streams.contract.types import validator


def by_subject(contract: CrunchContract, scope_key: str, value: Any, of_one: Callable[[Any], Any]) -> Any:
    """`of_one(value)`, or subject -> `of_one(value of the subject)` if several subjects are asked together.

    Raises KeyError if a subject is missing in `value`.
    """
    together = contract.together_in(scope_key)
    return {subject: of_one(value[subject]) for subject in together} if together else of_one(value)


def typed_truth(contract: CrunchContract, scope_key: str, truth: Mapping[str, Any]) -> Any:
    """A recorded ground truth as `ground_truth_type`, for scoring. Raises ValidationError."""
    return by_subject(contract, scope_key, truth, validator(contract.ground_truth_type))
