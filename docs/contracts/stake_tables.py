"""A round of Numerai: what is answered, what is posted as the truth, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel


class Answer(RootModel[dict[str, Any]]):
    """{id: a number from 0 to 1}, for each id of the round."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"n1": 0.25, "n2": 0.5}, {"n1": 0.75, "n2": 0.5}]}
    )


class Resolved(BaseModel):
    """`target` has None where nobody knows it. `stakes` by model."""

    target: dict[str, float | None]
    stakes: dict[str, float] = {}
    late: list[str] = []


def refusal(answer: Mapping[str, Any], ids: Mapping[str, Any]) -> str:
    """Why an answer is refused; empty where it is not."""
    if answer.keys() != ids.keys():
        return "ids are not the round's ids"
    numbers = list(answer.values())
    if not all(type(one) in (int, float) and 0 <= one <= 1 for one in numbers):
        return "a value is not in [0, 1]"
    return "all values are the same" if len(set(numbers)) == 1 else ""


def resolve(records: list[Any]) -> dict[str, Any]:
    """A record has the target of each id as `target:ID`, the stakes as `stake:MODEL`, and `late:MODEL`."""
    told: dict[str, dict[str, float]] = {"target": {}, "stake": {}, "late": {}, "missing": {}}
    for name, value in records[-1].values.items():
        kind, _, of = name.partition(":")
        told[kind][of] = value
    target: dict[str, float | None] = told["target"] | dict.fromkeys(told["missing"])  # type: ignore[assignment]
    return {"target": target, "stakes": told["stake"], "late": list(told["late"])}
