"""`GET /`: one page that shows the board live. It asks the report routes like any other reader."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

_PAGE = (Path(__file__).parent / "live.html").read_text(encoding="utf-8")
# Only what the page itself holds may run or load: a model's name is data, never markup.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
}


def router() -> APIRouter:
    """The page."""
    routes = APIRouter()

    @routes.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """The live leaderboard."""
        return HTMLResponse(_PAGE, headers=_HEADERS)

    return routes
