"""`GET /reports/models/metrics` and `/reports/models/summary`: snapshots as flat rows, for charts of one's own."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from coordinator.api.model_shapes import ModelMetrics
from coordinator.api.paging import PAGED, Cursor, with_next
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import ROWS_MAX, Ensembles, Span, project_ids, shaped, span
from coordinator.api.snapshots import snapshots_page
from coordinator.api.times import naive
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.streams.events import SnapshotTakenData
from coordinator.streams.scores.units import to_float, to_floats

LOOK_MAX = 20_000
"""A summary looks at this many of the newest snapshots. A model without one among them is not in it."""


@cache
def router() -> APIRouter:
    """The two routes."""
    routes = our_router()

    @routes.get(
        "/reports/models/metrics", response_model=list[ModelMetrics], responses={200: {"headers": PAGED}}
    )
    async def models_metrics(
        request: Request,
        read: Reading,
        include_ensembles: Ensembles,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(project_ids)],
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = ROWS_MAX,
        cursor: Cursor = None,
    ) -> Response:
        """One row per model and period: counts, windows and the contract's own aggregates, oldest first."""
        page, last = snapshots_page(read, when, ids, limit, cursor, ensembles=include_ensembles)
        rows = [_row(snapshot, read) for _, snapshot in page]
        return with_next(request, shaped(list[ModelMetrics], rows[::-1]), last)

    @routes.get("/reports/models/summary", response_model=list[ModelMetrics])
    async def models_summary(
        read: Reading,
        include_ensembles: Ensembles,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(project_ids)],
    ) -> Response:
        """Each model's newest row with period end in [start, end], by id."""
        newest: dict[str, SnapshotTakenData] = {}
        rows_max = len(read.models.all()) if ids is None else len(ids)
        if include_ensembles:
            rows_max = LOOK_MAX  # how many there are is not known here
        looked = read.snapshots.newest(
            when.start, when.end, ids, look=ReadBudget(LOOK_MAX), ensembles=include_ensembles
        )
        for _, snapshot in islice(looked, LOOK_MAX):
            newest.setdefault(snapshot.model_id, snapshot)
            if len(newest) == rows_max:
                break
        return shaped(list[ModelMetrics], [_row(newest[model_id], read) for model_id in sorted(newest)])

    return routes


def _row(snapshot: SnapshotTakenData, read: Readable) -> dict[str, Any]:
    decimals = read.snapshots.terms.decimals(snapshot.contract_hash)
    model = read.models.get(snapshot.model_id)
    summary = {name: to_float(units, decimals) for name, units in snapshot.summary_units.items()}
    windows = to_floats(snapshot.windows_units, decimals)
    return {
        # Aggregates of the contract's first: a built-in name is never one of the contract's names.
        **summary,
        **windows,
        "model_id": snapshot.model_id,
        "model_name": model.model_name,
        "cruncher_name": model.cruncher_name,
        "performed_at": naive(snapshot.period_end),
        "scored_count": snapshot.scored_count,
        "failed_count": snapshot.failed_count,
        "absent_model_count": snapshot.absent_model_count,
        "absent_node_count": snapshot.absent_node_count,
    }
