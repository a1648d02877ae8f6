"""`GET /` and `/page/...`: the built-in page, served from the files beside this module.

Hand-written HTML, CSS and ES modules: nothing is built, nothing comes from elsewhere. The page asks the report routes
like any other reader. The policy lets only its own files run or load: a model's name is data, never markup.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from coordinator.api.queries import our_router

FOLDER = Path(__file__).parent / "static"
HEADERS = {
    "Cache-Control": "no-cache",  # asked again each time, answered 304: a new version is never mixed with an old one
}


class Files(StaticFiles):
    """Files that a browser asks for again each time."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file; the policy is on every answer (`access`)."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers.update(HEADERS)
        return answer


@cache
def router() -> APIRouter:
    """The page and its files."""
    routes = our_router()

    @routes.get("/", response_class=FileResponse, include_in_schema=False)
    async def page() -> FileResponse:
        """The page."""
        return FileResponse(FOLDER / "index.html", headers=HEADERS)

    routes.routes.append(Mount("/page", Files(directory=FOLDER), name="page"))
    return routes
