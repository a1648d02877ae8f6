"""`GET /reports/live`: changes as server-sent events.

    state        first: crunch_id, clock_ts, first_ts; `reset` says why the stream could not resume from the id
    leaderboard  the rows that changed (`complete`: all rows), in order of `place`
    checkpoint   a checkpoint that was opened, withheld, or changed its status
    feeds        the state of the sources and subscriptions
    beat         ends every message, and is sent alone when nothing changes: clock_ts, first_ts; only it carries an id

The id is a log position (`live_position.py`). A listener that reconnects with it as Last-Event-ID gets what changed
since, also after a restart of this process. If that is longer ago than the turns in memory, it gets all rows of a board
or of feeds that changed, because their older state is not stored. If the id is too old (more than 256 changes of
checkpoints) or names another log, the listener gets everything, and `reset` gives the reason.

A slow listener loses nothing and needs no queue: it gets the newest state in fewer messages. A listener that reads
nothing for WRITE_SECONDS_MAX is disconnected; it can reconnect with its id.
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
from coordinator.api.queries import our_router
from coordinator.infra.connections import ABORT
from coordinator.projections.folding.projector import Projector

WRITE_SECONDS_MAX = 30.0
RETRY_MS_MIN, RETRY_MS_SPREAD = 1_000, 3_000
RETRY_AFTER_SECONDS = 10
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_log = structlog.get_logger()


class LiveStream(Response):
    """A response without an end: the listener's messages, until one side closes the connection."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, reached: dict[str, int] | None, hello: dict[str, Any]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._hub, self._reached, self._hello = hub, reached, hello

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        try:
            async with self._hub.listener(client[0] if client else ""):
                await self._send_changes(scope, receive, send)
        except TooManyListenersError:
            body = b'{"detail":"too many live listeners; ask again later"}'
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            refusal = Response(body, 503, headers, media_type="application/problem+json")
            await refusal(scope, receive, send)

    async def _send_changes(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving: asyncio.Future[object] = asyncio.ensure_future(_until_disconnected(receive))
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX) as write_timeout:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                owed = self._hub.since(self._reached)
                turn = owed.turn
                # Listeners that lose the node together must not reconnect together.
                retry = b"retry: %d\n" % (RETRY_MS_MIN + secrets.randbelow(RETRY_MS_SPREAD))
                await _send(send, retry + self._hub.state.first_message(owed, self._hello))
                while not leaving.done() and not self._hub.ended:
                    # The timeout is for writes alone: waiting for a change may take any time.
                    write_timeout.reschedule(None)
                    await self._hub.wait_beyond(turn, leaving)
                    write_timeout.reschedule(asyncio.get_running_loop().time() + WRITE_SECONDS_MAX)
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
            # A clean close would wait for the listener to read what was written to it.
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is not None:
                abort["abort"]()
                await asyncio.wait((leaving,), timeout=1.0)
        finally:
            leaving.cancel()


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


class _ListenerMetrics(Collector):
    """The listeners' metrics for Prometheus."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """The values as of now."""
        yield GaugeMetricFamily("coordinator_live_listeners", "Open live streams.", self._hub.listeners)
        for name, about, count in (
            ("cut_off", "Live listeners disconnected because they did not read.", self._hub.cut_off),
            ("refused", "Live listeners refused because there were too many.", self._hub.refused),
        ):
            yield CounterMetricFamily(f"coordinator_live_{name}", about, count)


def router(projector: Projector, hub: Hub, registry: CollectorRegistry) -> APIRouter:
    """The route; its listeners are counted in `registry`."""
    routes = our_router()
    registry.register(_ListenerMetrics(hub))

    @routes.get(
        "/reports/live",
        response_class=LiveStream,
        status_code=200,  # without it FastAPI looks in the response class, and making the OpenAPI document fails
        responses={
            200: {
                "description": "Server-sent events, until one side ends it.",
                "content": {"text/event-stream": {}},
            },
            422: {"description": "Last-Event-ID is not a log position."},
            503: {"description": "Too many listeners; Retry-After says when to ask again."},
        },
    )
    async def live(
        last_event_id: Annotated[str | None, Header(max_length=CHARS_MAX)] = None,
        as_of: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Changes of the leaderboard, the checkpoints and the feeds, sent when they are folded."""
        if as_of is not None:
            raise HTTPException(422, "the live stream has no past: use another route with as_of")
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
