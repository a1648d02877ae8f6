"""What every answer's shape is made of, and the web app's schema.

A shape says which fields an answer has and of what type. Each answer is checked against its shape on the way out
(`answers.shaped`): a missing field, an extra one or another type is a bug of ours, and the answer is an error. The
OpenAPI document is made from the same classes. Some shapes follow the web app: its field names, times without a zone
where it plots them, numbers at the top level of a row. They say so.

The shapes are in `board_shapes`, `model_shapes`, `feed_shapes`, `health_shapes`, `checkpoint_shapes`,
`invariant_shapes` and `pools`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Naive = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}$", examples=["2023-03-10T00:01:00.000"]),
]
"""UTC without a zone: the web app's charts append the Z themselves."""
Zulu = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", examples=["2023-03-10T00:01:00.000Z"]),
]
"""UTC with Z: the web app parses the times of feeds and checkpoints as they are."""
Id = Annotated[str, Field(examples=["trend"])]
Status = Literal["PENDING", "SUBMITTED", "CLAIMABLE", "PAID", "WITHHELD"]


class Shape(BaseModel):
    """Exactly these fields, with exactly these types: no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WithWindows(Shape):
    """Each score window is a field at the top level (`score_recent`, ...): the web app plots only these."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | None]


class ScoreRanking(Shape):
    """The window or key of the summary that the board ranks by, and this row's value of it."""

    key: str
    value: float | None
    direction: Literal["asc", "desc"]


class Column(Shape):
    """A column of the web app's leaderboard."""

    id: int
    type: Literal["USERNAME", "PROJECT", "VALUE", "REWARD_RANK"]
    property: str
    format: str | None
    displayName: str  # noqa: N815 - the web app's name
    tooltip: str | None
    nativeConfiguration: dict[str, Any] | None  # noqa: N815 - the web app's name
    order: int


class Schema(Shape):
    """What the web app's leaderboard shows."""

    schema_version: str
    leaderboard_columns: list[Column]
    metrics_widgets: list[dict[str, Any]]
