"""Shared by all routes: answers as bytes, and the parameters of lists.

Answers are bare JSON of a declared shape. A wrong parameter is 422 with a sentence.
Routes are `async` although they wait for nothing: in the event loop they never run while a fold is half done. In a
thread they would.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from fastapi import Depends, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from coordinator.api.read_models import HELD_FROM, LIVE, WINDOW
from coordinator.api.times import MOMENT_SCHEMA, parse_ms, zulu
from coordinator.projections.folding.past_held import past_cut
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.spread_rounds import is_rehearsing
from coordinator.streams.setting_checks import FAR_FUTURE_MS

_encoder = msgspec.json.Encoder()
ROWS_MAX = 10_000
IDS_MAX = 1_000


def json_answer(body: Any) -> Response:
    """The body as JSON, for what has no shape of its own: exact decimals, the bytes of an emission."""
    return Response(_encoder.encode(body), media_type="application/json")


def encoded(shape: Any, body: Any) -> bytes:
    """The body as JSON, having passed through its shape (`shapes`). Raises pydantic.ValidationError, which is a bug
    of the node.
    """
    adapter = _adapter(shape)
    return adapter.dump_json(adapter.validate_python(body))


def shaped(shape: Any, body: Any, status: int = 200) -> Response:
    """An answer of this shape."""
    return Response(encoded(shape, body), status, media_type="application/json")


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


class Span(msgspec.Struct, frozen=True):
    """start <= time <= end, in ms."""

    start: int
    end: int


Moment = Annotated[
    str | None, Query(max_length=64, json_schema_extra=MOMENT_SCHEMA, examples=["2023-03-10T00:00:00Z"])
]
"""A time in a query: ISO 8601 (without a zone it is UTC) or epoch ms."""


async def span(request: Request, start: Moment = None, end: Moment = None) -> Span:
    """`start` and `end`; without them: everything.

    A window that begins after the clock of a node that rehearses ends at that clock, as long as it was: the web app
    asks for the last 30 days by the wall, where a replay of old data has nothing. `X-Window` then says which it was.
    Raises PastCutError if the window ends before the horizon; of one that begins before it `X-Past-From` says so.
    """
    asked = _span(start, end)
    moved = rehearsed(asked, request.scope.get(LIVE))
    if moved.end < (held_ms := request.scope[HELD_FROM]):
        raise past_cut(held_ms, "this window is before it")
    if moved != asked:
        request.scope[WINDOW].append(f"{zulu(moved.start)}/{zulu(moved.end)}")
    return moved


def rehearsed(asked: Span, live: ReadModels | None) -> Span:
    """The window to answer for: moved back where the node rehearses, as asked in the past (`live` is None)."""
    clock = live.feeds.clock if live is not None else 0
    if live is None or not 0 < clock < asked.start <= asked.end or not is_rehearsing(live.predictions):
        return asked
    length = clock if asked.end == FAR_FUTURE_MS else asked.end - asked.start
    return Span(max(0, clock - length), clock)


def _span(start: str | None, end: str | None) -> Span:
    try:
        # "+" in a query is a blank to HTTP, and then no zone: take it back.
        first, last = (text.replace(" ", "+") if text and "T" in text else text for text in (start, end))
        return Span(
            0 if first is None else parse_ms(first), FAR_FUTURE_MS if last is None else parse_ms(last)
        )
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


_IDS: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}, "maxItems": IDS_MAX},
        {"type": "string", "examples": ["trend,revert"]},
    ]
}


async def project_ids(
    project_ids: Annotated[
        list[str] | None, Query(alias="projectIds", max_length=IDS_MAX, json_schema_extra=_IDS)
    ] = None,
) -> set[str] | None:
    """`projectIds`, repeated or joined by commas; None when not given: all models."""
    if project_ids is None:
        return None
    ids = {part.strip() for text in project_ids for part in text.split(",") if part.strip()}
    if len(ids) > IDS_MAX:
        raise HTTPException(422, f"projectIds names {len(ids)} models; at most {IDS_MAX}")
    return ids or None


async def with_ensembles(*, include_ensembles: Annotated[bool, Query()] = False) -> bool:
    """`include_ensembles`: the contract's virtual models too. One that `projectIds` names is told in any case."""
    return include_ensembles


Ensembles = Annotated[bool, Depends(with_ensembles)]
