"""A week of DataCrunch: the form of an answer, and of the posted truth."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, model_validator


def rows_of(table: Any, *names: str) -> Any:
    """[[cell of each name], ..] of a table `{"columns": {name: [..]}}`, the form in which a file arrives. Any other
    value is returned unchanged. Raises ValueError for columns that are missing or of different lengths.
    """
    if not isinstance(table, dict) or not isinstance(columns := table.get("columns"), dict):
        return table
    if any(not isinstance(columns.get(name), list) for name in names):
        raise ValueError(f"a table has the columns {', '.join(names)}")
    return [list(row) for row in zip(*(columns[name] for name in names), strict=True)]


class Table(RootModel[list[Any]]):
    """[[moon, id, prediction], ..], a row for each id; or a table with these columns. A table with a cell that is not a
    number is refused at once.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [[[501, 1, 0.5], [501, 2, -0.5]], [[501, 1, -0.25], [501, 2, 0.75]]]}
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_table(cls, value: Any) -> Any:
        rows = rows_of(value, "moon", "id", "prediction")
        wrong = (
            next((row for row in rows if type(row[2]) not in (int, float)), None)
            if rows is not value
            else None
        )
        if wrong is not None:
            raise ValueError(f"{wrong[1]}: not a number")
        return rows


class Moon(BaseModel):
    """The targets of a week by id; or a table with the columns moon, id and target."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"moon": 501, "target": {"1": 0.5, "2": number}} for number in (-1.0, 0.75)]
        }
    )
    moon: int
    target: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _of_a_table(cls, value: Any) -> Any:
        rows = rows_of(value, "moon", "id", "target")
        if rows is value or not rows:
            return value
        if len({moon for moon, _, _ in rows}) > 1 or len({str(name) for _, name, _ in rows}) != len(rows):
            raise ValueError("a truth is of one moon, and has each id once")
        return {"moon": rows[0][0], "target": {str(name): target for _, name, target in rows}}
