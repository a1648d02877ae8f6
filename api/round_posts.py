"""`POST /rounds` and what is below it, `POST /stakes`: an operator's posts, and participants' answers.

The body is read like a file (`infra/rounds/files.py`) and all of it is checked before any is sent: a body with a fault
is refused whole, 422 with the place and the reason. Then the commands are sent, and the answer waits until the stages
have decided them and the read models show it. Not decided in time is 202; asking again is safe, since what is posted
twice is one. What a stage refuses is 409 with each item and its reason; then nothing of the post is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response

from coordinator.api import round_shapes as shapes
from coordinator.api.commands import Sender, sender_of
from coordinator.api.problems import problem
from coordinator.api.queries import our_router
from coordinator.api.responses import shaped
from coordinator.api.times import parse_ms
from coordinator.api.turns import Turns
from coordinator.infra.rounds.files import FileRefusedError, read_content
from coordinator.infra.rounds.posts_in_file import (
    PostOptions,
    beside_the_log,
    questions_of,
    stakes_of,
    truths_of,
)
from coordinator.infra.rounds.sending import CommandsOf, closing, posting, resolving, staking, voiding
from coordinator.infra.rounds.tables import TableBlob
from coordinator.projections.views.round_work import RoundWork, effects_of
from coordinator.streams.events import Event
from coordinator.streams.log.errors import OperatorError, OutcomeUnknownError, WorldError
from coordinator.streams.ports import Blobs

log = structlog.get_logger()

RoundId = Annotated[str, Path(max_length=200)]
Moment = Annotated[str | None, Query(max_length=64, description="ISO 8601, or ms since 1970.")]
QuestionIds = Annotated[list[str], Query(max_length=1_000, description="Which; none: all of the round.")]
BODY = {
    "requestBody": {
        "required": True,
        "description": "JSON, JSON lines, CSV or Parquet, at most 64 MiB; its bytes show which.",
        "content": {
            name: {"schema": {}}
            for name in (
                "application/json",
                "application/x-ndjson",
                "text/csv",
                "application/vnd.apache.parquet",
            )
        },
    }
}
DECIDED: dict[int | str, dict[str, Any]] = {
    202: {"model": shapes.Posted, "description": "Sent, and not decided in time; asking again is safe."},
    404: {"description": "No such round or question was posted."},
    409: {"description": "The stage refused some of it: `refused` has each item with its reason."},
    422: {"description": "What was sent cannot be read or is wrong; nothing of it was taken."},
    503: {"description": "It was not written, or too many wait."},
}


@cache
def router() -> APIRouter:
    """The writing routes about posted questions; `app.state` has the Sender, and the Blobs of large tables."""
    routes = our_router()
    turns = Turns("round posts")

    def keep(table: TableBlob, blobs: Blobs) -> None:
        try:
            blobs.put(table.content)
        except OperatorError as error:
            log.error("blob_not_kept", reason=str(error))  # noqa: TRY400 - for the operator; it names a path
            raise HTTPException(503, "this node cannot store the table; its log has the reason") from error

    async def checked(request: Request, work: Callable[[Any], Any]) -> Any:
        body = await request.body()
        return await in_turn(request, turns, lambda: work(read_content(body)))

    @routes.post("/rounds", response_model=shapes.Posted, responses=DECIDED, openapi_extra=BODY)
    async def post(
        request: Request,
        round_id: Annotated[str, Query(max_length=100)] = "",
        question_id: Annotated[str, Query(max_length=100)] = "",
        opens: Moment = None,
        closes: Moment = None,
        resolves: Moment = None,
    ) -> Response:
        """Post a round of questions, or more of them to a round that is there. One that is open and differs is a new
        revision of it. Query parameters hold where the body says nothing. A table above 256 kB is kept as a blob, and
        models get it as a DataFrame, the argument `table` of their tick.
        """
        sender = sender_of(request)
        read, blobs = sender.projector.read, request.app.state.blobs
        at = sender.now_ms()
        beside = PostOptions(
            now=at,
            round_id=round_id,
            question_id=question_id,
            opens_at=_moment(opens),
            closes_at=_moment(closes),
            resolves_at=_moment(resolves),
        )

        def work(content: Any) -> Any:
            content = beside_the_log(content)
            posted = questions_of(content, beside, parse_ms, read.rounds.opens_at)
            if isinstance(content, TableBlob):
                keep(content, blobs)
            return posted

        name, questions = await checked(request, work)
        return await decide(sender, name, posting(name, questions))

    @routes.post("/rounds/{round_id}/close", response_model=shapes.Posted, responses=DECIDED)
    async def close(
        request: Request,
        round_id: RoundId,
        question_id: QuestionIds = [],  # noqa: B006 - fastapi's way
    ) -> Response:
        """Take no more answers, although the time is not over."""
        sender = sender_of(request)
        read = sender.projector.read
        return await decide(
            sender, round_id, closing(round_id, _named(read, round_id, question_id, {"open"}))
        )

    @routes.post("/rounds/{round_id}/void", response_model=shapes.Posted, responses=DECIDED)
    async def void(
        request: Request,
        round_id: RoundId,
        reason: Annotated[str, Query(min_length=1, max_length=500)],
        question_id: QuestionIds = [],  # noqa: B006
    ) -> Response:
        """Count questions for nobody: no one is scored in them."""
        sender = sender_of(request)
        named = _named(
            sender.projector.read, round_id, question_id, {"upcoming", "open", "closed", "resolved"}
        )
        return await decide(sender, round_id, voiding(round_id, reason, named))

    @routes.post(
        "/rounds/{round_id}/resolve", response_model=shapes.Posted, responses=DECIDED, openapi_extra=BODY
    )
    async def resolve(
        request: Request,
        round_id: RoundId,
        question_id: Annotated[str, Query(max_length=100)] = "",
        *,
        again: Annotated[
            bool, Query(description="Score them again, also by the same truth: after a lost blob is back.")
        ] = False,
    ) -> Response:
        """Say what came of questions, by their ids. Another truth than the one before is a correction."""
        truths = await checked(request, lambda content: truths_of(content, round_id, question_id))
        sender = sender_of(request)
        _named(sender.projector.read, round_id, list(truths), set())
        return await decide(sender, round_id, resolving(round_id, truths, again=again))

    @routes.post("/stakes", response_model=shapes.Posted, responses=DECIDED, openapi_extra=BODY)
    async def stakes(request: Request) -> Response:
        """Replace the table of stakes: it holds for questions that close from now on."""
        return await decide(sender_of(request), "", staking(await checked(request, stakes_of)))

    return routes


async def in_turn(request: Request, turns: Turns, work: Callable[[], Any], asker: str = "") -> Any:
    """What `work` gives, made in a thread when its turn comes. Raises HTTPException: 422 for a file with a fault, 503
    and 429 as `Turns.run`.
    """
    results: list[Any] = []

    def made() -> Response:
        try:
            results.append(work())
        except FileRefusedError as error:
            raise HTTPException(422, str(error)) from error
        return Response()

    await turns.run(request, made, asker)
    return results[0]


async def decide(sender: Sender, round_id: str, commands_of: CommandsOf) -> Response:
    """Send the commands, wait for their effects, answer."""
    at = sender.now_ms()
    try:
        commands: Sequence[Event] = commands_of(at)
    except FileRefusedError as error:
        return problem(422, str(error))
    read = sender.projector.read
    work = RoundWork(
        read.dead_letters, {command.id: effects_of(read.rounds, command) for command in commands}
    )
    try:
        for command in commands:
            await sender.port.send(command)
    except OutcomeUnknownError as error:
        return _answer(round_id, work, commands, 202, str(error))
    except WorldError as error:
        return problem(503, f"{error}; what was sent before stands, and asking again is safe")
    await sender.projector.wait_until(lambda: work.open() == 0, sender.wait_seconds)
    refused = work.refused()
    if refused:
        refused_items = [{"item": item, "reason": reason} for item, reason in islice(refused, 100)]
        first = f"{refused[0][0]}: {refused[0][1]}"
        return problem(
            409,
            f"{len(refused)} of {work.items} refused, and with them the whole post; the first is {first}",
            refused=refused_items,
        )
    return _answer(round_id, work, commands, 202 if work.open() else 200, "")


def _answer(round_id: str, work: RoundWork, commands: Sequence[Event], status: int, detail: str) -> Response:
    undecided = work.open()
    body = {
        "round_id": round_id or None,
        "command_ids": [command.id for command in commands],
        "accepted": work.items - undecided,
        "undecided": undecided,
        "detail": detail or ("not decided yet; asking again is safe" if undecided else None),
    }
    return shaped(shapes.Posted, body, status)


def _named(read: Any, round_id: str, named: list[str], states: set[str]) -> list[str]:
    """The named questions of a round, or all of it that stand there. Raises HTTPException 404."""
    if read.rounds.round(round_id) is None:
        raise HTTPException(404, f"no round {round_id!r} was posted")
    for name in named:
        if read.rounds.question(round_id, name) is None:
            raise HTTPException(
                404, f"no question {name!r} was posted in round {round_id!r}: nothing was done"
            )
    return named or [
        question.question_id for question in read.rounds.questions(round_id) if question.state in states
    ]


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else parse_ms(text.replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
