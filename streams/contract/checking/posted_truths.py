"""Makes truths of a contract's `ground_truth_type`, as they may be posted, for the checks of a contract. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, described
from coordinator.streams.contract.trial_answers import (
    answers_to_try,
    read_back,
    recorded,
    shown,
    usual_answer,
)
from coordinator.streams.log.errors import ContractError


def posted_truths(contract: CrunchContract) -> dict[str, BaseModel]:
    """The truth in words -> a truth: the type's examples, or each field varied between -1 and 1.

    Raises ContractError if none can be made, or if a truth would be no object.
    """
    kind = contract.ground_truth_type
    try:
        tried = answers_to_try(kind) or [kind.model_validate(usual_answer(kind))]
        truths = {f"the truth {shown(truth)}": read_back(truth) for truth in tried}
    except AUTHORS_ERRORS as error:
        raise ContractError(
            "contract field ground_truth_type: `contract check` cannot invent a truth; give examples in the type: "
            f"{described(error)}"
        ) from error
    if not isinstance(recorded(tried[0]), dict):
        raise ContractError("contract field ground_truth_type: a posted truth is an object with named fields")
    if isinstance(kind.model_config.get("json_schema_extra"), dict):
        return truths
    return {name: truth for name, truth in truths.items() if _is_usual(recorded(truth))} or truths


def _is_usual(fields: dict[str, Any]) -> bool:
    """Whether no number is beyond 1: who posts truths knows their size, and this does not."""
    return all(abs(value) <= 1 for value in fields.values() if isinstance(value, (int, float)))
