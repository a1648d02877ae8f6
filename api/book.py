"""`GET /docs/book/...`: the documentation as a book, where this installation carries it.

`make docs` builds the files into `api/book`, and a wheel that is built after it holds them. They run under the same
policy as the page: nothing inline, nothing from elsewhere. Its stylesheets hold their icons as `data:`, which is let in
for pictures alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import Scope

from coordinator.api.access import HEADERS
from coordinator.api.page import Files
from coordinator.api.problems import problem
from coordinator.api.queries import our_router

FOLDER = Path(__file__).parent / "book"
WHERE = "/docs/book"
POLICY = HEADERS[b"content-security-policy"].decode() + "; img-src 'self' data:"
MISSING = (
    "this installation carries no book: `make docs` in a checkout builds it, and docs/ has the same pages"
)


class BookFiles(Files):
    """The files of the book, under its policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or what says that there is none."""
        answer = await super().get_response(path, scope)
        answer.headers["content-security-policy"] = POLICY
        return answer


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
        routes.routes.append(Mount(WHERE, BookFiles(directory=folder, html=True), name="book"))
    return routes
