"""Pages of lists that are bare arrays: the next page is named in the headers, because the body holds only the rows.

A cursor is the place of the last row given, in the order of the list; it stays right while new rows come. A list that
ends with more to come says so: `X-Next-Cursor`, `Link: rel="next"` and `X-Truncated: true`. A reader that knows nothing
of pages, such as the web app, gets the newest rows.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
from fastapi import HTTPException, Query, Request
from fastapi.responses import Response

CURSOR_CHARS_MAX = 1_000
Cursor = Annotated[
    str | None,
    Query(max_length=CURSOR_CHARS_MAX, description="`X-Next-Cursor` of the page before; of this list alone."),
]
PAGED: dict[str, Any] = {
    "X-Next-Cursor": {"description": "Where the next page begins.", "schema": {"type": "string"}},
    "X-Truncated": {"description": "`true` when there is more.", "schema": {"type": "string"}},
    "Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}},
}
"""Headers of a 200 in the OpenAPI."""


def place_of(cursor: str | None, kind: Any) -> Any:
    """The place that a cursor names, a tuple of `kind`; None without one.

    Raises HTTPException 422 for what is no cursor of this list.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise HTTPException(
            422, "this cursor does not belong to this list: use the value of X-Next-Cursor unchanged"
        ) from error
    if any(isinstance(part, int) and not 0 <= part < 1 << 62 for part in place):
        raise HTTPException(
            422, "this cursor does not belong to this list: use the value of X-Next-Cursor unchanged"
        )
    return place


def with_next(request: Request, answer: Response, last: tuple[Any, ...] | None) -> Response:
    """The answer, saying where the next page begins; `last` is the place of its last row, None when no more follows."""
    if last is not None:
        cursor = base64.urlsafe_b64encode(msgspec.json.encode(last)).rstrip(b"=").decode()
        path = request.url.include_query_params(cursor=cursor)
        answer.headers["X-Next-Cursor"] = cursor
        answer.headers["X-Truncated"] = "true"
        answer.headers["Link"] = f'<{path.path}?{path.query}>; rel="next"'
    return answer
