"""What is given by subject where a contract asks several of them together.

Pure. Reads a contract and a value of one scope; gives it typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordinator.streams.contract.contract import CrunchContract


def by_subject(contract: CrunchContract, scope_key: str, value: Any, of_one: Callable[[Any], Any]) -> Any:
    """`of_one(value)`; where several subjects are asked together, of each one's value. Raises KeyError for one that
    lacks.
    """
    together = contract.together_in(scope_key)
    return {one: of_one(value[one]) for one in together} if together else of_one(value)


def typed_truth(contract: CrunchContract, scope_key: str, truth: Mapping[str, Any]) -> Any:
    """A recorded ground truth as the scoring gets it. Raises ValidationError."""
    return by_subject(contract, scope_key, truth, contract.ground_truth_type.model_validate)
