"""`GET /reports/leaderboard`: the board as encoded bytes, made once per folded version.

This is the route that a page polls, so it bypasses FastAPI: a plain ASGI endpoint that sends cached bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import Response
from starlette.datastructures import QueryParams
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from coordinator.api.board_shapes import LeaderboardRow, NamedBoard
from coordinator.api.model_names import what_exists
from coordinator.api.positions import headers_of
from coordinator.api.queries import ScopeName, check_names, our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Ensembles, encoded, shaped
from coordinator.api.times import naive
from coordinator.projections.folding.as_of import Readable, cuts_of
from coordinator.projections.views.board_rows import Board, BoardRow
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.scope_board import board_names, scope_board
from coordinator.streams.scores.units import to_floats


@cache
def router() -> APIRouter:
    """The route as FastAPI knows it: for the OpenAPI, and for a question with parameters."""
    routes = our_router()

    @routes.get(
        "/reports/leaderboard",
        response_model=list[LeaderboardRow],
        responses={
            404: {"description": "No window, board, key of the summary or scope has that name."},
            422: {"description": "A parameter is wrong; `detail` says how."},
        },
    )
    async def leaderboard(
        read: Reading,
        include_ensembles: Ensembles,
        by: Annotated[str | None, Query(min_length=1, max_length=100)] = None,
        scope: ScopeName = "",
    ) -> Response:
        """The board in display order: ranked models, then models without a score or that have left, with `rank` null.

        `by` ranks by another window, or by a board over a window. A key of the snapshot summary (a metric) ranks as of
        the end of the last closed period, `ranked_as_of`. `scope` shows only the windows of that scope, in order,
        without ranks. `/reports/leaderboard/boards` lists all names. `include_ensembles` adds the contract's ensembles
        at the place of their number, with `rank` null.
        """
        if scope and by:
            raise HTTPException(422, "give either `by` or `scope`: windows of a scope have no rank")
        if scope:
            try:
                board = scope_board(read.leaderboard, scope)
            except KeyError as error:
                raise HTTPException(
                    404, f"scope: no score of {scope!r} is in any window; {_boards(read, scope, scopes=True)}"
                ) from error
            return shaped(list[LeaderboardRow], board_rows(board, ensembles=include_ensembles))
        try:
            board = read.leaderboard.board(by)
        except KeyError as error:
            raise HTTPException(
                404,
                f"by: no window, board or key of the summary is {by!r}; {_boards(read, by, scopes=False)}",
            ) from error
        return shaped(list[LeaderboardRow], board_rows(board, ensembles=include_ensembles))

    @routes.get("/reports/leaderboard/boards", response_model=list[NamedBoard])
    async def boards(read: Reading) -> Response:
        """The values of `by` for `/reports/leaderboard`, the contract's own first, and then those of `scope`."""
        names = [msgspec.structs.asdict(name) for name in board_names(read.leaderboard)]
        return shaped(list[NamedBoard], names)

    return routes


def _boards(read: Readable, wanted: str | None, *, scopes: bool) -> str:
    names = board_names(read.leaderboard)
    return what_exists(wanted or "", (board.name for board in names if (board.kind == "scope") is scopes))


class LeaderboardRoute(Route):
    """The same for a question without parameters, which is what a page polls: cached bytes, past FastAPI."""

    def __init__(self, leaderboard: Leaderboard) -> None:
        super().__init__("/reports/leaderboard", LeaderboardEndpoint(leaderboard), methods=["GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A question with parameters is the other route's."""
        if scope.get("query_string"):
            return Match.NONE, {}
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}  # as FastAPI does: the metrics count by it


def board_rows(board: Board | None, *, ensembles: bool = False) -> list[dict[str, Any]]:
    """`[{created_at, model_id, rank, <window>..., score_metrics, score_ranking, model_name, cruncher_name,
    ...}]`.
    """
    if board is None:
        return []
    return [_row(board, row) for row in board.rows if ensembles or not row.model.ensemble]


def _row(board: Board, row: BoardRow) -> dict[str, Any]:
    scores = to_floats(row.windows_units, board.decimals)
    return {
        **scores,  # first: a number with the name of a field of the row does not take its place
        "created_at": naive(board.until),
        "model_id": row.model.model_id,
        "score_metrics": scores,
        "score_ranking": {
            "key": board.ranking_key,
            "value": scores[board.ranking_key],
            "direction": board.direction,
        },
        "ranking_score": scores[board.ranking_key],
        "rank": row.rank,
        "model_name": row.model.model_name,
        "cruncher_name": row.model.cruncher_name,
        "cruncher_id": row.model.cruncher_id,
        "username": row.model.cruncher_name,
        "status": row.active,
        "ensemble": row.model.ensemble,
        "scored_count": row.scored_count,
        "mixed_contracts": board.mixed_contracts,
        "ranked_as_of": None if board.ranked_as_of is None else naive(board.ranked_as_of),
        "last_scored_at": None if row.last_scored_at is None else naive(row.last_scored_at),
        "unranked_reason": row.unranked_reason or None,
    }


class LeaderboardEndpoint:
    """An ASGI application of one route."""

    def __init__(self, leaderboard: Leaderboard) -> None:
        self._leaderboard = leaderboard
        self._version = -1
        self._body = b"[]"
        self._headers: list[tuple[bytes, bytes]] = []

    def body(self) -> bytes:
        """The encoded board; the same bytes until something new is folded."""
        if self._version != self._leaderboard.version:
            self._body = encoded(list[LeaderboardRow], board_rows(self._leaderboard.board()))
            self._version = self._leaderboard.version
            self._headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(self._body)).encode()),
                *headers_of([self._leaderboard], cuts_of([self._leaderboard]), "live"),
            ]
        return self._body

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            check_names(QueryParams(scope["query_string"]).keys(), frozenset())
        body = self.body()
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": body})
