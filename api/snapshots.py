"""`GET /reports/snapshots`: each model's periods."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from coordinator.api.model_names import NO_MODEL, models_wanted
from coordinator.api.model_shapes import Snapshot
from coordinator.api.paging import PAGED, Cursor, place_of, with_next
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Ensembles, Span, shaped, span
from coordinator.api.times import naive, zulu
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.streams.events import SnapshotTakenData
from coordinator.streams.scores.units import to_float, to_floats

LIMIT_MAX = 1_000
Place = tuple[int, str]
SNAPSHOTS_LOOKED_MAX = 20_000


@cache
def router() -> APIRouter:
    """The route about snapshots."""
    routes = our_router()

    @routes.get(
        "/reports/snapshots", response_model=list[Snapshot], responses={200: {"headers": PAGED}, **NO_MODEL}
    )
    async def snapshots(
        request: Request,
        read: Reading,
        include_ensembles: Ensembles,
        when: Annotated[Span, Depends(span)],
        wanted: Annotated[set[str] | None, Depends(models_wanted)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
        cursor: Cursor = None,
    ) -> Response:
        """The newest `limit` snapshots with period end in [start, end], newest first; with `cursor`, those before."""
        terms = read.snapshots.terms
        page, last = snapshots_page(read, when, wanted, limit, cursor, ensembles=include_ensembles)
        rows = [
            snapshot_answer(at, snapshot, terms.decimals(snapshot.contract_hash), read)
            for at, snapshot in page
        ]
        return with_next(request, shaped(list[Snapshot], rows), last)

    return routes


def snapshots_page(
    read: Readable, when: Span, ids: set[str] | None, limit: int, cursor: str | None, *, ensembles: bool
) -> tuple[list[tuple[int, SnapshotTakenData]], Place | None]:
    """(a page of snapshots, newest first, each with its `at`; the place where the next one begins, None at the end).

    For some models only, a limited number of snapshots is looked at, so the page may hold fewer than `limit`.
    """
    look = ReadBudget(SNAPSHOTS_LOOKED_MAX)
    rows = read.snapshots.newest(
        when.start, when.end, ids, after=place_of(cursor, Place), look=look, ensembles=ensembles
    )
    page = list(islice(rows, limit + 1))
    if len(page) > limit:
        last = page[limit - 1][1]
        return page[:limit], (last.period_end, last.model_id)
    return page, look.stopped_at


def snapshot_answer(at: int, snapshot: SnapshotTakenData, decimals: int, read: Readable) -> dict[str, Any]:
    """One model's period in the web app's shape; `at` is when it was taken, `decimals` are those of its scores."""
    model = read.models.get(snapshot.model_id)
    windows = to_floats(snapshot.windows_units | snapshot.boards_units, decimals)
    return {
        "id": snapshot.snapshot_id,
        "model_id": snapshot.model_id,
        "model_name": model.model_name,
        "cruncher_name": model.cruncher_name,
        "period_start": zulu(snapshot.period_start),
        "period_end": zulu(snapshot.period_end),
        "performed_at": naive(snapshot.period_end),
        # every pair of the period that ended for this model, whatever its end
        "prediction_count": snapshot.scored_count
        + snapshot.failed_count
        + snapshot.absent_model_count
        + snapshot.absent_node_count
        + snapshot.no_score_count,
        "scored_count": snapshot.scored_count,
        "failed_count": snapshot.failed_count,
        "absent_model_count": snapshot.absent_model_count,
        "absent_node_count": snapshot.absent_node_count,
        "no_score_count": snapshot.no_score_count,
        "result_summary": {name: to_float(units, decimals) for name, units in snapshot.summary_units.items()},
        "windows": windows,
        **windows,
        "rehearsal": snapshot.rehearsal,
        "created_at": zulu(at),
    }
