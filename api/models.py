"""`GET /reports/models`, `/reports/models/global` and `/reports/models/params`."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from coordinator.api.model_shapes import Model, ModelPoint, ModelScopePoint
from coordinator.api.paging import PAGED, Cursor, place_of, with_next
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import ROWS_MAX, Ensembles, Span, project_ids, shaped, span
from coordinator.api.snapshots import snapshots_page
from coordinator.api.times import naive
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.views.board_rows import Board, BoardRow
from coordinator.projections.views.model_rows import ModelRow
from coordinator.streams.events import Terms
from coordinator.streams.scores.units import to_floats

PERIODS_LOOKED_MAX = 1_500
"""Pairs of period and scope that one question about some models reads: each is a row of all models."""


@cache
def router() -> APIRouter:
    """The routes about models."""
    routes = our_router()

    @routes.get("/reports/models", response_model=list[Model], responses={200: {"headers": PAGED}})
    async def models(
        request: Request,
        read: Reading,
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = ROWS_MAX,
        cursor: Cursor = None,
    ) -> Response:
        """Every model ever seen, by id."""
        clock = read.feeds.clock
        after = place_of(cursor, tuple[str])
        rows = [row for row in read.models.all() if after is None or row.model_id > after[0]]
        last = (rows[limit - 1].model_id,) if len(rows) > limit else None
        places = places_of(read.leaderboard.board())
        shown = [model_row(row, clock, places.get(row.model_id)) for row in rows[:limit]]
        return with_next(request, shaped(list[Model], shown), last)

    @routes.get(
        "/reports/models/global", response_model=list[ModelPoint], responses={200: {"headers": PAGED}}
    )
    async def models_global(
        request: Request,
        read: Reading,
        include_ensembles: Ensembles,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(project_ids)],
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = ROWS_MAX,
        cursor: Cursor = None,
    ) -> Response:
        """Each model's windows at each period's end, oldest first."""
        rows = []
        page, last = snapshots_page(read, when, ids, limit, cursor, ensembles=include_ensembles)
        for _at, snapshot in page:
            decimals = read.snapshots.terms.decimals(snapshot.contract_hash)
            scores = to_floats(snapshot.windows_units, decimals)
            rows.append(
                {
                    "model_id": snapshot.model_id,
                    "performed_at": naive(snapshot.period_end),
                    **scores,
                    "score_metrics": scores,
                    **_ranking(
                        to_floats(snapshot.ranking_units, decimals),
                        read.snapshots.terms.at(snapshot.period_start),
                    ),
                }
            )
        return with_next(request, shaped(list[ModelPoint], rows[::-1]), last)

    @routes.get(
        "/reports/models/params", response_model=list[ModelScopePoint], responses={200: {"headers": PAGED}}
    )
    async def models_params(
        request: Request,
        read: Reading,
        include_ensembles: Ensembles,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(project_ids)],
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = ROWS_MAX,
        cursor: Cursor = None,
    ) -> Response:
        """The same for each scope, oldest first: `asset`, `horizon` and `param` are at the top level for
        filters.
        """
        terms = read.leaderboard.terms
        rows = []
        after = place_of(cursor, tuple[int, str, str, str])
        look = ReadBudget(PERIODS_LOOKED_MAX)
        history = read.leaderboard.history(
            when.start, when.end, ids, after=after, look=look, ensembles=include_ensembles
        )
        newest = list(islice(history, limit + 1))
        for row in newest[:limit][::-1]:
            now = terms.at(row.until - 1)
            asked = (terms_known for terms_known in (now, *terms.in_order) if terms_known is not None)
            scopes = (scope for terms_known in asked for scope in terms_known.scopes)
            scope = next(
                (
                    scope
                    for scope in scopes
                    if (scope.subject, scope.scope_key) == (row.subject, row.scope_key)
                ),
                None,
            )
            scores = to_floats(row.windows_units, now.score_decimals if now else 9)
            rows.append(
                {
                    "model_id": row.model_id,
                    "performed_at": naive(row.until),
                    **scores,
                    "asset": row.subject,
                    "subject": row.subject,
                    "horizon": scope.horizon_seconds if scope else None,
                    "step": scope.step_seconds if scope else None,
                    "param": row.scope_key,
                    "scope_key": row.scope_key,
                    "scope": {
                        "subject": row.subject,
                        "horizon_seconds": scope.horizon_seconds if scope else None,
                        "step_seconds": scope.step_seconds if scope else None,
                    },
                    "score_metrics": scores,
                    **_ranking(scores, now),
                }
            )
        last = newest[limit - 1] if len(newest) > limit else None
        return with_next(
            request,
            shaped(list[ModelScopePoint], rows),
            (last.until, last.subject, last.scope_key, last.model_id) if last else look.stopped_at,
        )

    return routes


def places_of(board: Board | None) -> dict[str, BoardRow]:
    """Each model's row of the board."""
    return {row.model.model_id: row for row in board.rows} if board is not None else {}


def model_row(row: ModelRow, clock: int, place: BoardRow | None) -> dict[str, Any]:
    """The web app's five fields, and what an operator asks next. A model that runs was last seen now, which is the
    node's clock; `deployments` counts them. `place` is its row of the board, None before there is one.
    """
    failure = row.last_failure
    last_seen = clock if row.left_at is None else row.left_at
    return {
        "model_id": row.model_id,
        "model_name": row.model_name,
        "cruncher_name": row.cruncher_name,
        "cruncher_id": row.cruncher_id,
        "deployment_id": row.deployment_id,
        "state": row.status,
        "reason": row.left_reason if row.ban_reason is None else row.ban_reason,
        "first_seen_at": _time(row.first_seen_at),
        "last_seen_at": None if row.first_seen_at is None else _time(max(last_seen, row.first_seen_at)),
        "deployments": row.deployments,
        "last_failure": None
        if failure is None
        else {"code": failure.code, "reason": failure.reason, "at": _time(failure.at)},
        "wallet_pubkey": row.wallet_pubkey or None,
        "hotkey": row.hotkey or None,
        "rank": None if place is None else place.rank,
        "unranked_reason": None if place is None else place.unranked_reason or None,
    }


def _time(at: int | None) -> str | None:
    """A time; None for what was before the node's first tick, which is 0 in the log."""
    return naive(at) if at else None


def _ranking(scores: dict[str, float | None], terms: Terms | None) -> dict[str, Any]:
    if terms is None:
        return {}
    key = terms.ranking_key
    return {"score_ranking": {"key": key, "value": scores.get(key), "direction": terms.ranking_direction}}
