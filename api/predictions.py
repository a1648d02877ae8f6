"""`GET /reports/predictions`: what was predicted and what it was worth."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from coordinator.api import model_shapes as shapes
from coordinator.api.paging import PAGED, Cursor, place_of, with_next
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import ROWS_MAX, Span, project_ids, shaped, span
from coordinator.api.times import naive
from coordinator.api.turns import Turns
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.projections.views.spread_rounds import spread
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.scores.units import to_float

DEFAULT_LIMIT = 1_000
Place = tuple[int, str, str, str]
LOOKS_MAX = 30_000
"""About 1,400 rounds for a question about one model, 250 for one about a status among 100 models: 60 ms of a core."""

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": PAGED
        | {
            "X-Thinned": {
                "description": "These are not all rows, nor the newest.",
                "schema": {"type": "string"},
            }
        }
    },
    503: {"description": "Too many such questions wait; Retry-After says when to ask again."},
}


@cache
def router() -> APIRouter:
    """The route about predictions."""
    routes = our_router()
    turns = Turns("predictions")

    @routes.get("/reports/predictions", response_model=list[shapes.Prediction], responses=ANSWERS)
    async def predictions(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(project_ids)],
        status: shapes.PredictionStatus | None = None,
        limit: Annotated[int | None, Query(ge=1, le=ROWS_MAX)] = None,
        cursor: Cursor = None,
    ) -> Response:
        """The newest `limit` predictions (default 1,000) of rounds opened in [start, end], oldest first.

        `cursor` gives those before. A search for rare rows reads a limited number of rounds, so a page may hold fewer
        rows and still name a next page. A question with a `start` and without `limit`, `cursor` and `status` is for a
        chart: if it has more than 1,000 rows, they come from rounds that are spread evenly over the time, and
        `X-Thinned` says so.
        """
        after = place_of(cursor, Place)
        chart = when.start > 0 and limit is None and cursor is None and status is None
        asked = Question(when, ids, status, limit or DEFAULT_LIMIT, after, chart)
        # In a thread: a narrow question may read thousands of rounds, all of them committed rows.
        return await turns.run(request, lambda: _answer(request, read, asked))

    return routes


class Question(msgspec.Struct, frozen=True):
    """What is asked for. `chart`: rather all of the time thinly than the newest rows whole."""

    when: Span
    ids: set[str] | None
    status: str | None
    limit: int
    after: Place | None
    chart: bool


def _answer(request: Request, read: Readable, asked: Question) -> Response:
    when, limit = asked.when, asked.limit
    look = ReadBudget(LOOKS_MAX)
    rounds = read.predictions.newest(
        when.start, when.end, asked.ids, asked.status, after=asked.after, look=look
    )
    page = list(islice(rounds, limit + 1))
    if asked.chart and (len(page) > limit or look.stopped_at is not None):
        thinned = spread(read.predictions, when.start, when.end, asked.ids, limit, LOOKS_MAX)
        answer = shaped(list[shapes.Prediction], [row_of(prediction) for prediction in thinned])
        answer.headers["X-Thinned"] = (
            f"{len(thinned)} rows of rounds spread evenly over the time; with limit: the newest"
        )
        answer.headers["X-Truncated"] = "true"
        return answer
    rows = [row_of(prediction) for prediction in page[:limit]]
    last = page[limit - 1].place if len(page) > limit else look.stopped_at
    return with_next(request, shaped(list[shapes.Prediction], rows[::-1]), last)


def row_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction as the web app reads it. Its contract's value field is `score_value`."""
    scores = {
        name: to_float(units, prediction.decimals) for name, units in (prediction.score_units or {}).items()
    }
    final = prediction.status != "PENDING"
    scored = prediction.status == "SCORED"
    return {
        "id": prediction_id(prediction.input_id, prediction.scope_key, prediction.model_id),
        "input_id": prediction.input_id,
        "model_id": prediction.model_id,
        "deployment_id": prediction.deployment_id,
        "prediction_config_id": prediction.scope_key,
        "scope_key": prediction.scope_key,
        "scope": {
            "subject": prediction.subject,
            "horizon_seconds": prediction.horizon_seconds,
            "step_seconds": prediction.step_seconds,
        },
        "asset": prediction.subject,
        "subject": prediction.subject,
        "horizon": prediction.horizon_seconds,
        "param": prediction.scope_key,
        "status": prediction.status,
        "output": prediction.output,
        "output_bytes": prediction.output_bytes,
        "output_hidden": prediction.hidden,
        "output_hidden_until": naive(prediction.resolvable_at)
        if prediction.hidden and prediction.resolvable_at is not None
        else None,
        "exec_time_us": prediction.exec_time_us,
        "performed_at": naive(prediction.performed_at),
        "resolvable_at": None if prediction.resolvable_at is None else naive(prediction.resolvable_at),
        "scored_at": None if prediction.scored_at is None else naive(prediction.scored_at),
        "score_value": scores.get(prediction.value_field),
        "score": scores or None,
        "score_charge": None
        if prediction.charge_units is None
        else to_float(prediction.charge_units, prediction.decimals),
        "score_success": scored if final else None,
        "score_failed": final and not scored and prediction.fault != "nobody",
        # The web app's alert marks rows that are a success and have a reason: on success it must be null.
        "score_failed_reason": prediction.reason if final and not scored else None,
        "fault": prediction.fault,
        "state": None if prediction.state is None else msgspec.json.decode(prediction.state),
    }
