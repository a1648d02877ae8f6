"""A round of Numerai: the form of an answer and of the posted truth, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, model_validator


def by_id(table: Any, column: str) -> Any:
    """{id: its cell} of a table `{"columns": {"id": [..], column: [..]}}`, the form in which a file arrives. Any other
    value is returned unchanged. Raises ValueError for a repeated id, or a column that is missing or too short.
    """
    if not isinstance(table, dict) or not isinstance(columns := table.get("columns"), dict):
        return table
    ids, cells = columns.get("id"), columns.get(column)
    if not isinstance(ids, list) or not isinstance(cells, list) or len(ids) != len(cells):
        raise ValueError(f"a table has the columns id and {column}, with a cell in each row")
    if len({str(row_id) for row_id in ids}) != len(ids):
        raise ValueError("duplicate ids")
    return {str(row_id): cell for row_id, cell in zip(ids, cells, strict=True)}


def is_share(cell: Any) -> bool:
    """Whether the value is a number from 0 to 1."""
    return type(cell) in (int, float) and 0 <= cell <= 1


class Answer(RootModel[dict[str, Any]]):
    """{id: a number from 0 to 1}, for each id of the round; or a table with the columns id and prediction. A table with
    another cell is refused at once, because otherwise it would replace a good answer.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"n1": 0.25, "n2": 0.5}, {"n1": 0.75, "n2": 0.5}]}
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_table(cls, value: Any) -> Any:
        answer = by_id(value, "prediction")
        wrong = (
            next((row_id for row_id in answer if not is_share(answer[row_id])), None)
            if answer is not value
            else None
        )
        if wrong is not None:
            raise ValueError(f"{wrong}: not in [0, 1]")
        return answer


class Resolved(BaseModel):
    """`target` is {id: target}, with None for an unknown one, or a table with the columns id and target. `late` names
    the models whose answers came after the operator's close: they are scored, and their stake is not at risk.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"target": {"n1": 0.0, "n2": 1.0}}, {"target": {"n1": 1.0, "n2": 0.25}}]
        }
    )
    target: dict[str, float | None]
    late: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _of_a_table(cls, value: Any) -> Any:
        return {"target": by_id(value, "target")} if isinstance(value, dict) and "columns" in value else value


def refusal(answer: Mapping[str, Any], ids: Mapping[str, Any]) -> str:
    """Why an answer is refused; empty if it is accepted."""
    if answer.keys() != ids.keys():
        return "ids are not the round's ids"
    numbers = list(answer.values())
    if not all(is_share(number) for number in numbers):
        return "a value is not in [0, 1]"
    return "all values are the same" if len(set(numbers)) == 1 else ""
