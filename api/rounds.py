"""`GET /reports/rounds` and what is below it, `/reports/stakes`, and `/events/overview`: posted questions.

Nobody's answer is shown while it can still be copied: the answers come from the read model of predictions, which
hides them, and the overview of events leaves them out until the question is closed.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response

from coordinator.api import round_shapes as shapes
from coordinator.api.paging import PAGED, Cursor, place_of, with_next
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.times import naive, zulu, zulu_or_none
from coordinator.api.turns import Turns
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import held_from, past_cut
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.projections.views.question_answers import answers_of, have_left, number_in, said_in
from coordinator.projections.views.round_rows import AskedRow, QuestionRow, RoundRow
from coordinator.streams.scores.units import to_float

LIMIT_MAX = 1_000
EVENTS_MAX = 200
LOOKS_MAX = 20_000
RoundId = Annotated[str, Path(max_length=200)]
QuestionId = Annotated[str, Path(max_length=200)]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such round or question was posted."}}
BUSY: dict[int | str, dict[str, Any]] = {
    503: {"description": "Too many such questions wait; Retry-After says when to ask again."}
}


@cache
def router() -> APIRouter:
    """The reading routes about posted questions."""
    routes = our_router()
    turns = Turns("rounds")

    @routes.get("/reports/rounds", response_model=list[shapes.Round], responses={200: {"headers": PAGED}})
    async def rounds(
        request: Request,
        read: Reading,
        state: shapes.State | None = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
        cursor: Cursor = None,
    ) -> Response:
        """Rounds of posted questions, the newest posted first, with the number of questions in each state. `state`
        selects the rounds in this state.
        """
        look = ReadBudget(LOOKS_MAX)
        rows = read.rounds.rounds(state, after=place_of(cursor, tuple[int, str]), look=look)
        page = list(islice(rows, limit + 1))
        last = (page[limit - 1].posted_at, page[limit - 1].round_id) if len(page) > limit else look.stopped_at
        return with_next(
            request, shaped(list[shapes.Round], [round_answer(round_row) for round_row in page[:limit]]), last
        )

    @routes.get(
        "/reports/rounds/{round_id}",
        response_model=shapes.RoundDetail,
        responses={200: {"headers": PAGED}, **NOT_FOUND},
    )
    async def one_round(
        request: Request,
        read: Reading,
        round_id: RoundId,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
        cursor: Cursor = None,
    ) -> Response:
        """A round and a page of its questions, in the order of their ids."""
        row = read.rounds.round(round_id)
        if row is None:
            raise HTTPException(404, f"no round {round_id!r} was posted")
        after = place_of(cursor, tuple[str])
        page = list(islice(read.rounds.questions(round_id, after=after[0] if after else None), limit + 1))
        body = round_answer(row) | {
            "questions_shown": [question_answer(question_row) for question_row in page[:limit]]
        }
        last = (page[limit - 1].question_id,) if len(page) > limit else None
        return with_next(request, shaped(shapes.RoundDetail, body), last)

    @routes.get(
        "/reports/rounds/{round_id}/questions/{question_id}",
        response_model=shapes.QuestionDetail,
        responses={**NOT_FOUND, **BUSY},
    )
    async def one_question(
        request: Request, read: Reading, round_id: RoundId, question_id: QuestionId
    ) -> Response:
        """A question and each model's answer to it; hidden until answers are closed."""
        row = read.rounds.question(round_id, question_id)
        if row is None:
            raise HTTPException(404, f"no question {question_id!r} was posted in round {round_id!r}")

        def answer() -> Response:
            if have_left(read.predictions, row):
                raise past_cut(held_from(read.predictions), "the round of these answers is before it")
            answers = [_answer_row(prediction, read) for prediction in answers_of(read.predictions, row)]
            return shaped(shapes.QuestionDetail, question_answer(row) | {"answers": answers})

        return await turns.run(request, answer)

    @routes.get("/reports/stakes", response_model=shapes.Stakes)
    async def stakes(read: Reading) -> Response:
        """The table of stakes for questions that close from now on."""
        since, table = read.rounds.stakes() or (None, {})
        return shaped(shapes.Stakes, {"since": zulu_or_none(since), "stakes": table})

    @routes.get("/events/overview", response_model=shapes.EventsOverview, responses=BUSY)
    async def overview(
        request: Request,
        read: Reading,
        limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = 50,
        *,
        resolved_only: Annotated[bool, Query()] = False,
        pending_only: Annotated[bool, Query()] = False,
    ) -> Response:
        """Posted questions as events, the newest posted first, with each model's number and score once answers are
        closed. Void ones are left out, and so are those whose answers have left the node (PAST_DAYS).
        """
        wanted = {"resolved"} if resolved_only else {"upcoming", "open", "closed", "resolved"}
        if pending_only:
            wanted -= {"resolved"}
        return await turns.run(request, lambda: _overview(read, wanted, limit))

    return routes


def _overview(read: Readable, wanted: set[str], limit: int) -> Response:
    look = ReadBudget(LOOKS_MAX)
    rows = (
        row
        for row in read.rounds.newest(look)
        if row.state in wanted and not have_left(read.predictions, row)
    )
    events = [_event(row, read) for row in islice(rows, limit)]
    totals = read.rounds.totals()
    body = {
        "events": events,
        "total": totals["total"],
        "resolved_count": totals["resolved"],
        "pending_count": totals["pending"],
    }
    answer = shaped(shapes.EventsOverview, body)
    if look.stopped_at is not None and len(events) < limit:
        answer.headers["X-Truncated"] = "true"
    return answer


def round_answer(row: RoundRow) -> dict[str, Any]:
    """A round as the API tells it."""
    return {
        "round_id": row.round_id,
        "state": row.state,
        "posted_at": zulu(row.posted_at),
        "opens_at": zulu(row.opens_at),
        "closes_at": zulu(row.closes_at),
        "questions": row.questions,
        **{str(state): count for state, count in row.counts.items()},
    }


def question_answer(row: QuestionRow) -> dict[str, Any]:
    """A question as the API tells it. Its truth is the contract's once it is resolved, before that the posted one."""
    posted, asked = row.posted, row.asked or AskedRow()
    truth = asked.truth if asked.truth is not None else posted.truth
    return {
        "round_id": row.round_id,
        "question_id": row.question_id,
        "state": row.state,
        "tags": posted.tags,
        "posted_at": zulu(posted.posted_at),
        "opens_at": zulu(posted.opens_at),
        "closes_at": zulu(posted.closes_at),
        "resolves_at": zulu_or_none(posted.resolves_at),
        "resolves_by": posted.resolves_by or None,
        "revision": posted.revision,
        "payload": msgspec.json.decode(posted.payload),
        "payload_bytes": posted.payload_bytes,
        "blob_sha256": posted.blob_sha256 or None,
        "blob_rows": posted.blob_rows,
        "scope_key": asked.scope_key or None,
        "input_id": asked.input_id or None,
        "askings": asked.askings,
        "closed_at": zulu_or_none(asked.closed_at),
        "resolved_at": zulu_or_none(asked.resolved_at),
        "truth": None if truth is None else msgspec.json.decode(truth),
        "truth_revision": asked.revision if asked.truth is not None else posted.truth_revision,
        "truth_refused": asked.refused,
        "reason": row.void_reason,
    }


def _score(prediction: Prediction) -> dict[str, float] | None:
    units = prediction.score_units
    return (
        {name: to_float(score_units, prediction.decimals) for name, score_units in units.items()}
        if units
        else None
    )


def _answer_row(prediction: Prediction, read: Readable) -> dict[str, Any]:
    model = read.models.get(prediction.model_id)
    return {
        "model_id": prediction.model_id,
        "model_name": model.model_name,
        "cruncher_name": model.cruncher_name,
        "status": prediction.status,
        "output": prediction.output,
        "output_hidden": prediction.hidden,
        "answered_at": naive(prediction.performed_at),
        "input_id": prediction.input_id,
        "score": _score(prediction),
        "reason": prediction.reason or None,
    }


def _event(row: QuestionRow, read: Readable) -> dict[str, Any]:
    posted, asked = row.posted, row.asked or AskedRow()
    payload = msgspec.json.decode(posted.payload)
    texts = {
        name: str(value)
        for name in ("title", "question", "description", "source")
        if (value := said_in(payload, name))
    }
    price = said_in(payload, "yes_price")
    truth = asked.truth if row.state == "resolved" else None
    closed = row.state in ("closed", "resolved")
    return {
        "event_id": f"{row.round_id}/{row.question_id}",
        "title": texts.get("title") or texts.get("question") or row.question_id,
        "description": texts.get("description", ""),
        "source": texts.get("source") or posted.resolves_by,
        "cutoff": zulu(posted.closes_at if asked.closed_at is None else asked.closed_at),
        "yes_price": number_in(price),
        "outcome": None if truth is None else number_in(msgspec.json.decode(truth)),
        "resolved": row.state == "resolved",
        "performed_at": naive(posted.posted_at if asked.opened_at is None else asked.opened_at),
        "predictions": [
            _event_prediction(prediction, read)
            for prediction in (answers_of(read.predictions, row) if closed else [])
            if prediction.status in ("PENDING", "SCORED")
        ],
    }


def _event_prediction(prediction: Prediction, read: Readable) -> dict[str, Any]:
    scored = prediction.status == "SCORED"
    scores = _score(prediction) or {}
    return {
        "model_id": prediction.model_id,
        "model_name": read.models.get(prediction.model_id).model_name or prediction.model_id,
        "prediction": number_in(prediction.output),
        "brier_score": scores.get(prediction.value_field) if scored else None,
        "scored": scored,
    }
