"""`GET /reports/schema`: which columns the web app's leaderboard shows.

The web app merges this with defaults of its own, as if its user had made them: ids 1 to 5 and their properties are the
defaults', so the node's columns begin at 10. The default formats win too, and show a score of 0.007 as 0.01: the column
`ranking_score` is ours, and shows on the app's first start what the ranks are by. Its three default charts always
appear and read routes that we serve; ours come beside them, with ids from 10 on and routes of their own.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.shapes import Schema
from coordinator.streams.events import Window
from coordinator.streams.setting_checks import FAR_FUTURE_MS

SCHEMA_VERSION = "1"
SNAPSHOTS_LOOKED_AT = 500
DEFAULT_WINDOWS = ("score_recent", "score_steady", "score_anchor")


@cache
def router() -> APIRouter:
    """The route of the schema."""
    routes = our_router()

    @routes.get("/reports/schema", response_model=Schema)
    async def schema(read: Reading) -> Response:
        """`{schema_version, leaderboard_columns, metrics_widgets}`."""
        terms = read.leaderboard.terms_now
        # A model whose number is undefined lacks its key: only the snapshots of many tell all names.
        newest = islice(read.snapshots.newest(0, FAR_FUTURE_MS), SNAPSHOTS_LOOKED_AT)
        aggregates = sorted({name for _, snapshot in newest for name in snapshot.summary_units})
        tips = {window.name: tip_of(window) for window in terms.windows} if terms else {}
        boards = [board for board in terms.boards if board.window] if terms else []
        tips |= {
            board.name: f"Mean over {len(board.parts)} scopes, each as {board.window}" for board in boards
        }
        if terms and terms.ranking_key not in terms.live_keys:
            tips[terms.ranking_key] = "As of the end of the last snapshot period"
        body = {
            "schema_version": SCHEMA_VERSION,
            "leaderboard_columns": columns(tips),
            "metrics_widgets": widgets(aggregates),
        }
        return shaped(Schema, body)

    return routes


def widgets(aggregates: list[str]) -> list[dict[str, Any]]:
    """Charts beside the web app's three: the contract's own aggregates per period, and what was paid. The web app
    merges charts of one address, so each has an address of its own.
    """
    series = [(name, _label(name)) for name in aggregates] or [("scored_count", "Scored predictions")]
    charts = [
        _chart(10, "Scores per period", "/reports/models/metrics", series, "decimal-4"),
        _chart(
            11, "Rewards", "/reports/checkpoints/rewards", [("reward_percent", "Share in %")], "decimal-4"
        ),
    ]
    return [chart | {"order": 100 + order} for order, chart in enumerate(charts)]


def _chart(number: int, title: str, url: str, series: list[tuple[str, str]], form: str) -> dict[str, Any]:
    lines = [{"name": name, "label": label} for name, label in series]
    return {
        "id": number,
        "type": "CHART",
        "displayName": title,
        "tooltip": None,
        "endpointUrl": url,
        "nativeConfiguration": {
            "type": "line",
            "xAxis": {"name": "performed_at"},
            "yAxis": {"series": lines, "format": form},
            "displayEvolution": False,
        },
    }


def _label(name: str) -> str:
    return name.removeprefix("score_").replace("_", " ").capitalize()


def tip_of(window: Window) -> str:
    """A window's tooltip: what its number is."""
    if window.combines:
        return f"The weighted mean of {', '.join(window.combines)}"
    words = {
        "mean": "Mean score",
        "sum": "Sum of the scores",
        "ewma": "Weighted mean score, newer ones weigh more",
    }
    newest = f", of the newest {window.last}" if window.last else ""
    return f"{words.get(window.rule, 'Latest score')} of the last {window.hours} h{newest}"


def columns(tips: dict[str, str]) -> list[dict[str, Any]]:
    """The board's columns, each with its tooltip; windows named unlike the defaults come after them, then boards."""
    columns_of_board = [
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
    free = 12
    for name in [*DEFAULT_WINDOWS, *(name for name in tips if name not in ids)]:
        if name not in tips and tips:
            continue
        number = ids.get(name, free)
        free += name not in ids
        columns_of_board.append(_column(number, "VALUE", name, _label(name), "decimal-4", tips.get(name)))
    columns_of_board.append(
        _column(10, "VALUE", "rank", "Rank", "integer", "1 is best; equal ranks are tied")
    )
    columns_of_board.append(
        _column(11, "VALUE", "ranking_score", "Score", "decimal-6", "What the ranks are by")
    )
    return [column | {"order": order} for order, column in enumerate(columns_of_board)]


def _column(
    number: int, kind: str, name: str, label: str, form: str | None, tip: str | None, native: Any = None
) -> dict[str, Any]:
    return {
        "id": number, "type": kind, "property": name, "format": form, "displayName": label, "tooltip": tip,
        "nativeConfiguration": native,
    }  # fmt: skip
