"""`POST /rounds/{id}/answers`: the answers of a participant without a hosted model, with a cruncher's key.

The key says which model and cruncher they are of. They are checked at once against the output type of the contract
under which each question is asked, in a process of their own (`infra/rounds/checking.py`), and refused whole with the
row and the reason. The stage refuses what comes after the close. The receipt names what was handed in by its hash;
nobody else learns its content before the close.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from coordinator.api import round_shapes as shapes
from coordinator.api.access import KEY_ENTRY
from coordinator.api.commands import sender_of
from coordinator.api.keys import Entry
from coordinator.api.problems import problem
from coordinator.api.queries import our_router
from coordinator.api.responses import shaped
from coordinator.api.round_posts import BODY, DECIDED, RoundId, in_turn
from coordinator.api.times import zulu
from coordinator.api.turns import Turns
from coordinator.infra.blobs.answer_blobs import beside_the_log
from coordinator.infra.rounds.answers import AnswerableQuestion
from coordinator.infra.rounds.checking import AT_ONCE, HandIn
from coordinator.infra.rounds.files import FileRefusedError
from coordinator.infra.rounds.sending import submitting
from coordinator.projections.views.round_work import RoundWork, records_of
from coordinator.streams.durations import DAY_MS
from coordinator.streams.events import SubmittedAnswer
from coordinator.streams.log.errors import CoordinatorError, OutcomeUnknownError, WorldError
from coordinator.streams.ports import Blobs

CLOCK_BEHIND_MS = DAY_MS
"""The longest outage of the sources for which the clock of a node that runs live may be behind."""
ANSWERS_PER_HOUR_MAX = 20_000
"""Of one model. Each answer is a round in the log, which is kept for ever."""
RETRY_SECONDS = "600"
Check = Callable[[HandIn], list[SubmittedAnswer]]
"""What was handed in -> its answers. Raises FileRefusedError, and CoordinatorError if it cannot be checked."""
ANSWERED: dict[int | str, dict[str, Any]] = {
    **DECIDED,
    202: {
        "model": shapes.Receipt,
        "description": "Sent, and not recorded yet; you can safely hand in again.",
    },
    429: {
        "description": "Another file of the same cruncher is being checked, or its model has handed in "
        f"{ANSWERS_PER_HOUR_MAX:,} answers within an hour; hand in again later."
    },
    409: {
        "description": "The round takes no answers, or the stage refused some: `refused` has each with its reason."
    },
}


def is_over(closes_at: int, clock: int, now: int) -> bool:
    """Whether a question has closed by the time of this machine, `now`, but not yet by the node's clock (all in ms).

    While the sources are down, the clock stands still, and the stage would take answers for as long. A clock that is
    further behind is that of a replay: then the question is of the past, and goes by that clock alone.
    """
    return closes_at <= now < clock + CLOCK_BEHIND_MS


@cache
def router() -> APIRouter:
    """The route; `app.state` has the Sender, `check`, which is called in a thread, and the Blobs of large answers."""
    routes = our_router()
    turns = Turns("submissions", AT_ONCE)
    limiter = FixedWindowRateLimiter(MemoryStorage())

    @routes.post(
        "/rounds/{round_id}/answers", response_model=shapes.Receipt, responses=ANSWERED, openapi_extra=BODY
    )
    async def answers(
        request: Request, round_id: RoundId, question_id: Annotated[str, Query(max_length=100)] = ""
    ) -> Response:
        """Hand in answers to questions of a round that are open. The last ones before the close count."""
        entry: Entry = request.scope[KEY_ENTRY]
        sender = sender_of(request)
        read = sender.projector.read
        check: Check = request.app.state.check
        blobs: Blobs = request.app.state.blobs
        body = await request.body()
        at = sender.now_ms()
        if read.rounds.round(round_id) is None:
            raise HTTPException(404, f"no round {round_id!r} was posted")
        asked = {
            question.question_id: AnswerableQuestion(
                question.question_id, question.asked.scope_key, row.contract_hash
            )
            for question in read.rounds.questions(round_id)
            if question.state == "open" and question.asked is not None and not question.posted.is_closed
            if not is_over(question.posted.closes_at, read.feeds.clock, at)
            if (row := read.predictions.input(question.asked.input_id)) is not None
        }
        if not asked:
            return problem(409, f"no question of round {round_id} accepts answers now")
        digest = hashlib.sha256(body).hexdigest()
        try:
            submitted = await in_turn(
                request,
                turns,
                lambda: beside_the_log(check(HandIn(body, asked, question_id)), blobs),
                entry.cruncher_id or entry.model_id,
            )
            hourly = RateLimitItemPerHour(ANSWERS_PER_HOUR_MAX)
            if not limiter.test(hourly, entry.model_id, cost=len(submitted)):  # a refused file counts nothing
                too_many = f"more than {ANSWERS_PER_HOUR_MAX:,} answers of model {entry.model_id} in an hour"
                return problem(429, too_many, {"Retry-After": RETRY_SECONDS})
            limiter.hit(hourly, entry.model_id, cost=len(submitted))
            commands = submitting(round_id, entry.model_id, entry.cruncher_id, submitted, digest)(at)
        except FileRefusedError as error:
            return problem(422, str(error))
        except CoordinatorError as error:
            return problem(503, f"this node cannot check the answers: {error}")
        work = RoundWork(
            read.dead_letters, {command.id: records_of(read.predictions, command) for command in commands}
        )
        detail = None
        try:
            for command in commands:
                await sender.port.send(command)
        except OutcomeUnknownError as error:
            detail = str(error)
        except WorldError as error:
            return problem(503, f"{error}; you can safely hand in again")
        else:
            await sender.projector.wait_until(lambda: work.open() == 0, sender.wait_seconds)
        if refused := work.refused():
            refused_items = [{"item": item, "reason": reason} for item, reason in refused[:100]]
            return problem(
                409, f"{len(refused)} of {work.items} answers refused: {refused[0][1]}", refused=refused_items
            )
        left = work.open()
        if left and detail is None:
            detail = "not recorded yet; you can safely hand in again"
        receipt = {
            "round_id": round_id,
            "model_id": entry.model_id,
            "cruncher_id": entry.cruncher_id,
            "sha256": digest,
            "received_at": zulu(at),
            "command_ids": [command.id for command in commands],
            "questions": [answer.question_id for answer in submitted],
            "recorded": work.items - left,
            "detail": detail,
        }
        return shaped(shapes.Receipt, receipt, 202 if left else 200)

    return routes
