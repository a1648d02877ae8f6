"""`GET /reports/live`: what changes, as server-sent events.

    state        first: crunch_id, clock_ts, first_ts; `reset` says why an id could not be resumed from
    leaderboard  the rows that changed (`complete`: all of them), in order of `place`
    checkpoint   one that was opened, withheld, or moved on
    feeds        how sources and subscriptions stand
    beat         ends every message, and comes alone when nothing changes: clock_ts, first_ts; it alone carries an id

The id is a log position (`live_position.py`). A listener that comes back with it as Last-Event-ID is told what changed
since, after a restart of this process too; of the board and the feeds then all rows, since how they stood is not kept.
An id that is too old (256 changes of checkpoints) or that names another log gets everything, and `reset` says so.

A listener that reads slower than things change misses nothing and costs nothing: it is told the newest state, in fewer
messages. One that takes nothing for WRITE_SECONDS_MAX is cut off; with its id it can come back.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from coordinator.api.live_hub import Hub, TooManyListenersError
from coordinator.api.live_position import CHARS_MAX, parse_position
from coordinator.api.live_state import times
from coordinator.infra.connections import ABORT
from coordinator.projections.folding.projector import Projector

WRITE_SECONDS_MAX = 30.0
RETRY_MS_MIN, RETRY_MS_SPREAD = 1_000, 3_000
RETRY_AFTER_SECONDS = 10
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_log = structlog.get_logger()


class LiveStream(Response):
    """The answer that does not end."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, reached: dict[str, int] | None, hello: dict[str, Any]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._hub, self._told, self._hello = hub, reached, hello

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        try:
            async with self._hub.listener(client[0] if client else ""):
                await self._speak(scope, receive, send)
        except TooManyListenersError:
            body = b'{"detail":"too many live listeners; ask again later"}'
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            refusal = Response(body, 503, headers, media_type="application/problem+json")
            await refusal(scope, receive, send)

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving: asyncio.Future[object] = asyncio.ensure_future(_left(receive))
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX) as bound:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                where = self._hub.since(self._told)
                turn = where.turn
                retry = b"retry: %d\n" % (RETRY_MS_MIN + secrets.randbelow(RETRY_MS_SPREAD))
                await _send(send, retry + self._hub.state.first_message(where, self._hello))
                while not leaving.done() and not self._hub.ended:
                    bound.reschedule(None)
                    await self._hub.wait_beyond(turn, leaving)
                    bound.reschedule(asyncio.get_running_loop().time() + WRITE_SECONDS_MAX)
                    if leaving.done() or self._hub.ended:
                        break
                    state = self._hub.state
                    body = state.changes_since(turn) or state.beat()
                    turn = state.number
                    await _send(send, body)
                if not leaving.done():
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._hub.cut_off += 1
            _log.info("live_listener_cut_off", seconds=WRITE_SECONDS_MAX)
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is not None:
                abort["abort"]()
                await asyncio.wait((leaving,), timeout=1.0)
        finally:
            leaving.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


class _Listening(Collector):
    """What Prometheus hears of the listeners."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        yield GaugeMetricFamily("coordinator_live_listeners", "Open live streams.", self._hub.listeners)
        for name, about, count in (
            ("cut_off", "Live listeners dropped because they took nothing.", self._hub.cut_off),
            ("refused", "Live listeners turned away because there was no room.", self._hub.refused),
        ):
            yield CounterMetricFamily(f"coordinator_live_{name}", about, count)


def router(projector: Projector, hub: Hub, registry: CollectorRegistry) -> APIRouter:
    """The route, counted in `registry`."""
    routes = APIRouter()
    registry.register(_Listening(hub))

    @routes.get(
        "/reports/live",
        response_class=LiveStream,
        status_code=200,  # FastAPI would look for it in the class, and the OpenAPI would fail
        responses={
            200: {
                "description": "Server-sent events, until one side ends it.",
                "content": {"text/event-stream": {}},
            },
            422: {"description": "Last-Event-ID is no log position."},
            503: {"description": "No room for another listener; Retry-After says when to ask again."},
        },
    )
    async def live(
        last_event_id: Annotated[str | None, Header(max_length=CHARS_MAX)] = None,
        as_of: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Changes of the leaderboard, the checkpoints and the feeds, as they are folded."""
        if as_of is not None:
            raise HTTPException(422, "the live stream has no past: ask the other routes with as_of")
        try:
            reached = parse_position(last_event_id) if last_event_id else None
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        hello = {
            "crunch_id": projector.settings.crunch_id,
            **times(projector.read),
            "resumed_from": last_event_id or None,
        }
        return LiveStream(hub, reached, hello)

    return routes
