"""`GET /reports/schema`: which columns the web app's leaderboard shows.

The web app merges this with defaults of its own, as if its user had made them: ids 1 to 5 and their
properties are the defaults', so columns of ours begin at 10. Its three default charts always appear and read
routes that we serve; we send none of our own.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from coordinator.api.answers import shaped
from coordinator.api.reading import Reading
from coordinator.api.shapes import Schema

SCHEMA_VERSION = "1"
DEFAULT_WINDOWS = ("score_recent", "score_steady", "score_anchor")


def router() -> APIRouter:
    """The route of the schema."""
    routes = APIRouter()

    @routes.get("/reports/schema", response_model=Schema)
    async def schema(read: Reading) -> Response:
        """`{schema_version, leaderboard_columns, metrics_widgets}`."""
        terms = read.leaderboard.terms.latest
        hours = {window.name: window.hours for window in terms.windows} if terms else {}
        return shaped(
            Schema,
            {"schema_version": SCHEMA_VERSION, "leaderboard_columns": columns(hours), "metrics_widgets": []},
        )

    return routes


def columns(window_hours: dict[str, int]) -> list[dict[str, Any]]:
    """The board's columns; windows named unlike the defaults come after them."""
    found = [
        _column(1, "USERNAME", "username", "Username", None, "Who made the model"),
        _column(
            2,
            "PROJECT",
            "model_id",
            "Model",
            None,
            "The model",
            {"type": "model", "statusProperty": "status"},
        ),
    ]
    ids = dict(zip(DEFAULT_WINDOWS, (3, 4, 5), strict=True))
    free = 11
    for name in [*DEFAULT_WINDOWS, *(one for one in window_hours if one not in ids)]:
        hours = window_hours.get(name)
        if hours is None and window_hours:
            continue
        number = ids.get(name, free)
        free += name not in ids
        tip = f"Mean score of the last {hours} h" if hours else None
        label = name.removeprefix("score_").replace("_", " ").capitalize()
        found.append(_column(number, "VALUE", name, label, "decimal-4", tip))
    found.append(_column(10, "VALUE", "rank", "Rank", "integer", "1 is best; equal ranks are tied"))
    return [column | {"order": order} for order, column in enumerate(found)]


def _column(
    number: int, kind: str, name: str, label: str, form: str | None, tip: str | None, native: Any = None
) -> dict[str, Any]:
    return {
        "id": number, "type": kind, "property": name, "format": form, "displayName": label, "tooltip": tip,
        "nativeConfiguration": native,
    }  # fmt: skip
