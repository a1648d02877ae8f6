"""The report worker: projector and API in one process and one event loop.

The port is taken first, so that a taken one is said before anything is opened, and answers from then on: 503 and the
reason while the worker waits for Kafka (`until_ready.py`). SIGTERM and SIGINT end it
cleanly. When the projector fails, the API ends with it: serving what no longer moves would look like health. Where a
record of the log is the reason it stays, ill and saying so, for a start again would not help.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import structlog
import uvicorn
from starlette.types import ASGIApp

from coordinator.api.app import create_app
from coordinator.api.as_of import let_live_answers_through
from coordinator.api.commands import Sender
from coordinator.api.monitor import Monitor, make_monitor
from coordinator.api.own_routes import OwnRoutes, load_own_routes
from coordinator.api.until_ready import Door
from coordinator.infra.connections import BACKLOG, Connections, ask_for_files, connections_max
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.log.own_log import OwnLog
from coordinator.infra.processes.ending import end_when_told
from coordinator.infra.processes.loop_watch import watch_loop
from coordinator.infra.processes.sockets import listen
from coordinator.projections.folding.projector import Projector
from coordinator.projections.tracing.switch import open_traces
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import LogError, WrongLogError
from coordinator.streams.settings import Settings

if TYPE_CHECKING:
    from coordinator.projections.tracing.otlp import TraceExport

SEND_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 60.0
SHUTDOWN_SECONDS_MAX = 3
_log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: uvicorn would raise them again after its end, and the exit code would not be
        0.
        """
        yield


def serve(settings: Settings) -> None:
    """Fold and serve until SIGTERM or SIGINT. Blocking.

    Raises OperatorError (port, store in use, own routes), WorldError (no broker), LogError naming a record that this
    version cannot read, StalledError: the process should then exit non-zero.
    """
    own_routes = load_own_routes(
        settings.api_routes_dir
    )  # a broken file is said before anything is waited for
    bound = listen(settings.api_host, settings.api_port, "API_PORT (or --port)")
    let_live_answers_through()
    ask_for_files()
    try:
        traces = open_traces(os.environ, settings.crunch_id, wall_ms)
        try:
            asyncio.run(_serve(settings, bound, own_routes, traces))
        finally:
            if traces is not None:
                traces.close()
    finally:
        bound.close()


async def _serve(
    settings: Settings, bound: socket.socket, own_routes: list[OwnRoutes], traces: TraceExport | None
) -> None:
    stopping = asyncio.Event()
    end_when_told(stopping)
    alive = asyncio.create_task(watch_loop(settings.health_file))
    try:
        await _fold_and_serve(settings, bound, own_routes, traces, stopping)
    finally:
        alive.cancel()


async def _fold_and_serve(
    settings: Settings,
    bound: socket.socket,
    own_routes: list[OwnRoutes],
    traces: TraceExport | None,
    stopping: asyncio.Event,
) -> None:
    door = Door(settings.crunch_id, "the node starts: it waits for Kafka and looks at its topics")
    async with _answering(door, bound) as answering:
        own = OwnLog(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir)
        if await _unless(stopping, own.check(CONNECT_SECONDS_MAX)) is None:
            return
        read = open_read_models(settings.data_dir, own.identity, settings.crunch_id)
        port = KafkaCommandPort(settings.kafka_bootstrap, settings.crunch_id)
        try:
            await port.start()
            projector = Projector(settings, read)
            if traces is not None:
                projector.on_decided = traces.take
            monitor = make_monitor(projector, port)
            door.open(create_app(settings, Sender(projector, port), own_routes=own_routes, monitor=monitor))
            _log.info("report_listening", host=settings.api_host, port=bound.getsockname()[1])
            await _run(projector, monitor, own, answering, stopping)
        finally:
            await port.stop()
            read.close()


async def _unless(stopping: asyncio.Event, work: Coroutine[None, None, str]) -> str | None:
    task = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        return None
    return task.result()


class _Answering:
    """The HTTP server at work. `serving` ends when it does."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._connections = Connections(connections_max())
        config = uvicorn.Config(
            app,
            http=self._connections.protocol,  # type: ignore[arg-type]
            ws="none",
            backlog=BACKLOG,
            proxy_headers=False,  # uvicorn believes whoever calls from here; whom we believe is in `access.py`
            server_header=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        )
        self._server = _Server(config)
        self.serving = asyncio.create_task(self._server.serve([bound]))
        self.sweeping = asyncio.create_task(self._connections.sweep())

    def stop(self) -> None:
        """Accept no more calls; those in flight have `SHUTDOWN_SECONDS_MAX` to finish."""
        self._server.should_exit = True


@asynccontextmanager
async def _answering(app: ASGIApp, bound: socket.socket) -> AsyncIterator[_Answering]:
    answering = _Answering(app, bound)
    try:
        yield answering
    finally:
        answering.stop()
        answering.sweeping.cancel()
        await answering.serving


async def _run(
    projector: Projector, monitor: Monitor, own: OwnLog, answering: _Answering, stopping: asyncio.Event
) -> None:
    serving = answering.serving
    folding = asyncio.create_task(projector.run())
    watching = asyncio.create_task(monitor.run())
    guarding = asyncio.create_task(own.watch())
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((serving, folding, watching, guarding, stop), return_when=asyncio.FIRST_COMPLETED)
        error = folding.exception() if folding.done() else None
        if isinstance(error, LogError) and not isinstance(error, WrongLogError):
            # A restart would meet the same record. /healthz, the alerts and the webhook report it until it is repaired.
            await asyncio.wait((serving, watching, guarding, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        projector.stop()
        folding.cancel()  # at its start it may wait for the broker for minutes
        answering.stop()
        stop.cancel()
        watching.cancel()
        guarding.cancel()
        results = await asyncio.gather(guarding, folding, serving, watching, return_exceptions=True)
    _log.info("report_stopped")
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
