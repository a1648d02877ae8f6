"""What the API's port answers until the node is ready: 503 with the reason, at once.

The report worker takes its port first and may then wait a minute for Kafka. A caller (a health check, a
page) learns this in the meantime, and does not hang.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.api.health_shapes import Healthz
from coordinator.api.problems import problem
from coordinator.api.responses import shaped

RETRY_AFTER_SECONDS = 2


class Door:
    """An ASGI app in front of the node's own. `waits_for` is a sentence for callers; `open` hands everything on."""

    def __init__(self, crunch_id: str, waits_for: str) -> None:
        self.waits_for = waits_for
        self._crunch_id = crunch_id
        self._app: ASGIApp | None = None

    def open(self, app: ASGIApp) -> None:
        """Let `app` answer from now on."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            if scope["path"] == "/healthz":
                answer = shaped(Healthz, self._health(), 503)
            else:
                answer = problem(503, self.waits_for)
            answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            await answer(scope, receive, send)

    def _health(self) -> dict[str, Any]:
        return {
            "status": "starting",
            "crunch_id": self._crunch_id,
            "lag": {},
            "positions": {},
            "events_folded": 0,
            "duplicates_ignored": 0,
            "last_fold_seconds_ago": None,
            "error": self.waits_for,
            "clock_ts": None,
            "stages": [],
            "sources": [],
            "alerts": [],
            "open_gaps": 0,
        }
