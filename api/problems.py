"""Errors on the wire: problem details of RFC 9457, with `detail` as the web app reads it.

Nothing of a traceback leaves the process: an unexpected error is logged under an id, and the answer carries only that
id.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from coordinator.projections.folding.past_held import PastCutError

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """`{type, title, status, detail, ...}`. `more` are members of this problem, such as `state` of a checkpoint."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(_encode(body), status, dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let what a route refuses be answered as a problem; what it did not expect is the `Access` layer's."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(PastCutError, _past_cut)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return problem(error.status_code, str(error.detail), error.headers)


async def _past_cut(_request: Request, error: Exception) -> Response:
    """410: it was there, and the log has it."""
    return problem(410, str(error))


async def _invalid(_request: Request, error: Exception) -> Response:
    """422 with one sentence for people and `errors` for programs; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [{"in": ".".join(map(str, error_["loc"])), "says": error_["msg"]} for error_ in error.errors()]
    detail = "; ".join(f"{error['in']}: {error['says']}" for error in errors)
    return problem(422, detail[:2000], errors=errors[:20])


def unexpected(path: str, error: Exception) -> Response:
    """500 for a bug of the node: the whole error is logged under an id, and the answer shows only the id."""
    incident = secrets.token_hex(8)
    _log.error("request_crashed", incident=incident, path=path, exc_info=error)
    return problem(
        500,
        f"this is a bug of the node; its log has the details under incident {incident}",
        incident=incident,
    )
