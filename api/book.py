"""`GET /docs/book/...`: the documentation as a book, where this installation carries it.

`make docs` builds the files into `api/book`, and a wheel that is built after it holds them. They run under the same
policy as the page: nothing inline, nothing from elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response
from starlette.routing import Mount

from coordinator.api.page import Files
from coordinator.api.problems import problem
from coordinator.api.queries import our_router

FOLDER = Path(__file__).parent / "book"
WHERE = "/docs/book"
MISSING = (
    "this installation carries no book: `make docs` in a checkout builds it, and docs/ has the same pages"
)


def is_built(folder: Path = FOLDER) -> bool:
    """Whether there is a book to serve."""
    return (folder / "index.html").is_file()


@cache
def router(folder: Path = FOLDER) -> APIRouter:
    """The book; a problem that says how to get one where there is none."""
    routes = our_router()

    @routes.get(WHERE, include_in_schema=False)
    async def book() -> Response:
        """To the first page. The address has no host in it: a proxy's would be lost."""
        return RedirectResponse(f"{WHERE}/") if is_built(folder) else problem(404, MISSING)

    if is_built(folder):
        routes.routes.append(Mount(WHERE, Files(directory=folder, html=True), name="book"))
    return routes
