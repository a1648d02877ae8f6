"""The orchestrator's read side over HTTP: `GET /models` for the web app's Models page, and each model's log.

Reads the host's models; changes nothing: starting, stopping and adding one is 405. A model that recovers is shown as
RUNNER_INITIALIZING, because the web app knows no state for it. Like the API it answers to no foreign Host, and a
connection that says nothing is dropped: the host needs its descriptors for the models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.infra.connections import Connections
from coordinator.infra.processes.sockets import listen
from coordinator.infra.rotated_log import read_end
from coordinator.streams.setting_checks import is_own_host

if TYPE_CHECKING:
    from coordinator.infra.models.host.host import ModelHost
    from coordinator.infra.models.host.hosted_model import HostedModel

LOG_BYTES_MAX = 256 * 1024
CONNECTIONS_MAX = 64
STATUS = {
    "STARTING": "RUNNER_INITIALIZING",
    "RUNNING": "RUNNER_RUNNING",
    "RECOVERING": "RUNNER_INITIALIZING",
    "STOPPED": "RUNNER_STOPPED",
}


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the host has its own."""
        yield


class _OwnHostsOnly:
    """Answers 421 to a Host that is not ours."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._app
        host = Headers(scope=scope).get("host", "")
        if not is_own_host(host, self._names):
            detail = f"this host does not answer to {host[:100]!r}; call it by its address, or as --announce names it"
            app = JSONResponse({"detail": detail}, 421)
        await app(scope, receive, send)


class ReadSide:
    """A separate server beside the websocket."""

    def __init__(self, host: ModelHost, crunch_id: str, address: str, port: int) -> None:
        """Binds at once. Raises OperatorError when the port is taken."""
        self._host, self._crunch_id = host, crunch_id
        self._socket = listen(address, port, "--http-port")
        self.port = int(self._socket.getsockname()[1])
        routes = [
            Route("/models", self._models),
            Route("/models/logs/runner/{model_id:path}", self._log),
            Route("/models/{model_id:path}", self._one),
        ]
        self._connections = Connections(CONNECTIONS_MAX)
        config = uvicorn.Config(
            _OwnHostsOnly(Starlette(routes=routes), {host.announce.lower()}),
            http=self._connections.protocol,  # type: ignore[arg-type]
            ws="none",
            server_header=False,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Serve, in tasks."""
        serving = self._server.serve([self._socket])
        self._tasks = [asyncio.create_task(work) for work in (serving, self._connections.sweep())]

    @property
    def serving(self) -> bool:
        """Whether connections are accepted by now."""
        return self._server.started

    async def stop(self) -> None:
        """End, and close the port."""
        self._server.should_exit = True
        for sweeping in self._tasks[1:]:
            sweeping.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    async def _models(self, request: Request) -> Response:
        return JSONResponse([self._row(model, request) for _, model in sorted(self._host.models.items())])

    async def _one(self, request: Request) -> Response:
        model = self._host.models.get(request.path_params["model_id"])
        if model is None:
            return JSONResponse({"detail": "there is no such model"}, 404)
        return JSONResponse(self._row(model, request))

    async def _log(self, request: Request) -> Response:
        model = self._host.models.get(request.path_params["model_id"])
        if model is None:
            return JSONResponse({"detail": "there is no such model"}, 404)
        return PlainTextResponse(read_end(self._host.log_path(model), LOG_BYTES_MAX))

    def _row(self, model: HostedModel, request: Request) -> dict[str, Any]:
        entry, failure = model.entry, model.failure
        return {
            "id": entry.model_id,
            "model_name": entry.model_name,
            "deployment_id": model.deployment_id,
            "desired_state": "STOPPED" if model.state == "STOPPED" else "RUNNING",
            "status": STATUS[model.state] if failure is None else "RUNNER_FAILED",
            "statusMessage": None if failure is None else f"{failure.code}: {failure.reason}",
            "crunch_id": self._crunch_id,
            "cruncher_id": entry.cruncher_id,
            "cruncher_name": entry.cruncher_name,
            "builder_log_uri": None,
            # Absolute: the web app replaces the orchestrator's base by its own, and finds nothing in a path alone.
            "runner_log_uri": f"{request.base_url}models/logs/runner/{quote(entry.model_id)}",
        }
