"""What all routes share: answers as bytes, and the parameters of lists.

Answers are bare JSON of a declared shape. A wrong parameter is 422 with a sentence.
Routes are `async` though they wait for nothing: in the event loop they never run while a fold is half done, as they
would in a thread.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from fastapi import HTTPException, Query
from fastapi.responses import Response
from pydantic import TypeAdapter

from coordinator.api.times import FAR_FUTURE_MS, parse_ms

_encoder = msgspec.json.Encoder()
ROWS_MAX = 10_000
IDS_MAX = 1_000


def json_answer(body: Any, status: int = 200) -> Response:
    """The body as JSON, for what has no shape of its own: exact decimals, the bytes of an emission."""
    return Response(_encoder.encode(body), status, media_type="application/json")


def encoded(shape: Any, body: Any) -> bytes:
    """The body as JSON, having passed through its shape (`shapes`). Raises pydantic.ValidationError: a bug of ours."""
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


_MOMENT: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time", "maxLength": 64},
        {"type": "integer", "minimum": 0, "maximum": FAR_FUTURE_MS},
    ]
}
Moment = Annotated[
    str | None, Query(max_length=64, json_schema_extra=_MOMENT, examples=["2023-03-10T00:00:00Z"])
]
"""A time in a query: ISO 8601 (without a zone it is UTC) or epoch ms."""


async def span(start: Moment = None, end: Moment = None) -> Span:
    """`start` and `end`; without them: everything."""
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
    found = {one.strip() for text in project_ids for one in text.split(",") if one.strip()}
    if len(found) > IDS_MAX:
        raise HTTPException(422, f"projectIds names {len(found)} models; at most {IDS_MAX}")
    return found or None
