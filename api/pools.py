"""`GET /reports/pools`: the whole board and the boards beside it, as the web app's page of pools reads them."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response

from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.shapes import Id, Shape
from coordinator.projections.views.board_rows import Board
from coordinator.streams.scores.units import to_float

GLOBAL = "global"
POOLS_MAX = 64
RANKED_MAX = 1000
"""The number of models of a pool in an answer, the best first: so an answer has a few megabytes at most."""


class PoolRanking(Shape):
    """A ranked model. The number that ranks stands under the pool's `metric`; the other one is 0, never null."""

    rank: int
    model_id: Id
    model_name: str
    avg_brier: float
    avg_pnl: float
    events_scored: int


class PoolBoard(Shape):
    """One board, best first."""

    pool: str
    metric: Literal["avg_brier", "avg_pnl"]
    """`avg_brier` where less is better, else `avg_pnl`."""
    rankings: list[PoolRanking]


class Pools(Shape):
    """The pool named `global` is always there, and first."""

    pools: list[PoolBoard]


@cache
def router() -> APIRouter:
    """The route of the pools."""
    routes = our_router()

    @routes.get("/reports/pools", response_model=Pools)
    async def pools(read: Reading) -> Response:
        """The live board as the pool `global`, then each board over a window by its own name; only ranked models."""
        leaderboard, terms = read.leaderboard, read.leaderboard.terms_now
        boards = (
            [board.name for board in terms.boards if board.window and board.name != GLOBAL] if terms else []
        )
        pools = [_pool(GLOBAL, leaderboard.board())]
        pools += [_pool(name, leaderboard.board(name)) for name in boards[: POOLS_MAX - 1]]
        return shaped(Pools, {"pools": pools})

    return routes


def _pool(name: str, board: Board | None) -> dict[str, Any]:
    if board is None:
        return {"pool": name, "metric": "avg_pnl", "rankings": []}
    metric = "avg_brier" if board.direction == "asc" else "avg_pnl"
    rankings = []
    # Ensembles have no rank and stand among the models, where their number belongs.
    for row in [ranked for ranked in board.rows if ranked.rank is not None][:RANKED_MAX]:
        units = row.windows_units[board.ranking_key]
        if units is None:
            continue
        numbers = {"avg_brier": 0.0, "avg_pnl": 0.0, metric: to_float(units, board.decimals)}
        model = {"rank": row.rank, "model_id": row.model.model_id, "model_name": row.model.model_name}
        rankings.append(model | numbers | {"events_scored": row.scored_count})
    return {"pool": name, "metric": metric, "rankings": rankings}
