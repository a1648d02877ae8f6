r"""The orchestrator's side of the protocol, for models on this machine.

Reads a folder of models and `report_failure` messages; emits `init` and `update` messages.

    starting -> RUNNING -> (process died) -> RECOVERING -> RUNNING, on a new port, as a new deployment
                   \-> STOPPED: reported as failed, died more often than its budget allows, or its folder is gone

While it runs, new folders join and removed ones leave. Changed code is a new deployment: its process starts beside
the old one, is announced, and then the old one ends.

A restarted process is always a new deployment on a new port: the client sets a model up once per
deployment, so a silent restart would answer "call Setup first" for ever.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import signal
import time
from pathlib import Path
from urllib.parse import unquote

import msgspec
import websockets
from websockets.asyncio.server import Server, ServerConnection, serve

from coordinator.infra.models.host.confine import TOKEN
from coordinator.infra.models.host.host_messages import Report, reports_in, send_all
from coordinator.infra.models.host.hosted_model import Failure, HostedModel, message_of
from coordinator.infra.models.host.model_folder import ModelEntry, left_out, read_models
from coordinator.infra.models.host.process import (
    ChildFailedError,
    Limits,
    child_server,
    end_child,
    log_path,
    start_child,
)
from coordinator.infra.models.host.usage import excesses
from coordinator.infra.models.host.watch import Change, FolderWatch
from coordinator.infra.processes.sockets import listen
from coordinator.streams.log.errors import OperatorError

log = logging.getLogger(__name__)

STARTS_AT_ONCE = 8
LOOK_SECONDS = 1.0
USAGE_SECONDS = 2.0
CONFINED = 2
"""The number of confinements that `confine.py` reports if it could keep a model from both files and the network."""
CLOSE_SECONDS = 1.0  # a connection that stays open must not delay the end
LAST_CALLS_SECONDS = 2.0
"""How long a replaced process may finish its open calls."""
REQUIREMENTS_FILE = "requirements.txt"


class ModelHost:
    """Runs the models of a folder, and tells the coordinators that connect to it where each model listens."""

    def __init__(
        self,
        models_dir: Path,
        crunch_id: str,
        port: int,
        log_dir: Path,
        limits: Limits | None = None,
        announce: str | None = None,
        token: str = "",
    ) -> None:
        """`token`: a coordinator that shows it when it connects may report failures of models."""
        self._models_dir, self._crunch_id, self._port = models_dir, crunch_id, port
        self._log_dir = log_dir.absolute()  # a child changes its working directory before it opens files
        self._limits = limits or Limits()
        self._listen = self._limits.listen_address
        self._token = token
        self.announce = announce or self._listen
        """The address of each model that coordinators get: this host's name, if the network knows one."""
        self._forks = child_server()
        self.models: dict[str, HostedModel] = {}
        self._supervisors: dict[str, asyncio.Task[None]] = {}
        self._listeners: set[asyncio.Queue[str]] = set()
        self._server: Server | None = None
        self._starting = asyncio.Semaphore(STARTS_AT_ONCE)
        self._watching: list[asyncio.Task[None]] = []
        self._changing: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Start every model, then listen; returns the port. Raises OperatorError (folder, models.yaml, port).

        Listening comes last: the first `init` must be complete, or a coordinator that comes back
        would take the models that are still starting for models that left.
        """
        entries = read_models(self._models_dir)
        for sentence in left_out(self._models_dir):
            log.warning("%s", sentence)
        if not entries:
            raise OperatorError(f"no models in {self._models_dir}: put a folder with a main.py there")
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._server = await serve(
            self._serve_coordinator,
            sock=listen(self._listen, self._port, "--port"),
            start_serving=False,
            close_timeout=CLOSE_SECONDS,
        )
        watch = FolderWatch(self._models_dir, entries)
        await asyncio.gather(*(self.add(entry) for entry in entries))
        await self._server.start_serving()
        self._watching = [asyncio.create_task(self._watch(watch)), asyncio.create_task(self._watch_usage())]
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def add(self, entry: ModelEntry) -> HostedModel:
        """Run one more model; returns when it is RUNNING or STOPPED. Raises ValueError if the id is taken."""
        if entry.model_id in self.models:
            raise ValueError(f"model {entry.model_id} is already here")
        if (entry.folder / REQUIREMENTS_FILE).exists():
            log.info("model %s: its %s is not installed", entry.model_id, REQUIREMENTS_FILE)
        model = self.models[entry.model_id] = HostedModel(entry, self.announce)
        supervisor = self._supervisors[entry.model_id] = asyncio.create_task(self._supervise(model))
        supervisor.add_done_callback(lambda task: self._supervised(model, task))
        await model.settled.wait()
        return model

    async def stop(self) -> None:
        """End every child, within about two seconds, and close the port. A second call does nothing."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._supervisors.values(), *self._changing, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(model) for model in self.models.values()))
        self._forks.stop()
        if self._server is not None:
            await self._server.wait_closed()

    def log_path(self, model: HostedModel) -> Path:
        """Where the model's stdout and stderr go."""
        return log_path(self._log_dir, model.entry.model_id)

    @property
    def unconfined(self) -> list[str]:
        """The models whose process the kernel does not keep from both files and the network."""
        children = ((model_id, model.child) for model_id, model in sorted(self.models.items()))
        return [
            model_id for model_id, child in children if child is not None and len(child.confined) < CONFINED
        ]

    def _supervised(self, model: HostedModel, task: asyncio.Task[None]) -> None:
        """A supervisor task has ended. If it raised because of a bug, stop its model, so that nobody waits for it."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("model %s: the host failed", model.entry.model_id, exc_info=error)
        self._stop_model(model, Failure("HOST_FAILED", f"{type(error).__name__}: {error}"))

    async def _watch_usage(self) -> None:
        """End each model whose processes or files together exceed its limits; its budget may allow a restart."""
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            children = {
                model_id: model.child for model_id, model in self.models.items() if model.child is not None
            }
            processes = {model_id: (child.pid, child.folder) for model_id, child in children.items()}
            for model_id, reason in (await asyncio.to_thread(excesses, processes, self._limits)).items():
                children[model_id].ended_for = reason
                children[model_id].signal(signal.SIGKILL)

    async def _watch(self, watch: FolderWatch) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for change in watch.look():
                log.info("model %s %s", change.entry.model_id, change.kind)
                task = asyncio.create_task(self._change(change))
                self._changing.add(task)
                task.add_done_callback(self._changed)

    def _changed(self, task: asyncio.Task[None]) -> None:
        self._changing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a change of the models folder could not be applied", exc_info=error)

    async def _change(self, change: Change) -> None:
        model = self.models.get(change.entry.model_id)
        if change.kind == "left":
            if model is not None:
                await self._remove(model)
        elif model is None:
            await self.add(change.entry)
        elif change.kind == "joined":
            pass  # it was added by hand
        elif change.kind == "renamed":
            model.entry = change.entry
            if model.state == "RUNNING":
                self._move(model, "RUNNING")
        elif model.stopped:  # other code gets a fresh restart budget
            await self._remove(model)
            await self.add(change.entry)
        elif model.child is None or model.state != "RUNNING":
            model.entry = change.entry  # it is starting: the next process runs the new code
        else:
            await self._replace(model, change.entry)

    async def _remove(self, model: HostedModel) -> None:
        """End a model and forget it: its folder is gone, or holds other code than what was stopped."""
        if not model.stopped:
            self._stop_model(model, Failure("REMOVED", "its folder was removed"))
        supervisor = self._supervisors.pop(model.entry.model_id)
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        await self._end(model)
        del self.models[model.entry.model_id]

    async def _replace(self, model: HostedModel, entry: ModelEntry) -> None:
        """Start the new code beside the old process, announce it, and end the old process after its last calls."""
        model.submissions += 1
        try:
            child = await start_child(
                self._forks, entry, self._limits, self._log_dir, copy=f"~{model.submissions}"
            )
        except ChildFailedError as error:
            log.warning("model %s: its new code %s; the old code keeps running", entry.model_id, error)
            return
        old = model.child
        if model.stopped or old is None:  # it was stopped, or died, while the new code started
            child.signal(signal.SIGKILL)
            model.entry = entry
            return
        model.entry = entry
        model.deploy(child)
        self._move(model, "RUNNING")
        try:
            await asyncio.sleep(LAST_CALLS_SECONDS)
        finally:
            await end_child(old)  # also if the host ends meanwhile

    async def _supervise(self, model: HostedModel) -> None:
        """Keep one model's process running until it is stopped or its budget is used up."""
        while not model.stopped:
            try:
                async with self._starting:
                    child = await start_child(self._forks, model.entry, self._limits, self._log_dir)
            except ChildFailedError as error:
                end = str(error)
            else:
                if model.stopped:  # reported while it was being restarted
                    model.child = child
                    child.signal(signal.SIGKILL)
                else:
                    model.deploy(child)
                    self._move(model, "RUNNING")
                end = await model.process_end()
                model.child = None
            if model.stopped:
                return
            if not model.died(time.monotonic(), self._limits):
                self._stop_model(model, Failure("UNEXPECTED_STOP", f"{end}; no restarts left"))
                return
            if model.state == "RUNNING":
                self._move(model, "RECOVERING")
            log.warning("model %s: %s; restarting", model.entry.model_id, end)
            await asyncio.sleep(min(0.1 * 2 ** len(model.deaths), 5.0))

    def _stop_model(self, model: HostedModel, failure: Failure) -> None:
        log.warning("model %s stopped: %s %s", model.entry.model_id, failure.code, failure.reason)
        model.failure = failure
        self._move(model, "STOPPED")
        if model.child is not None:
            model.child.signal(signal.SIGKILL)

    async def _end(self, model: HostedModel) -> None:
        child, model.child = model.child, None
        if child is not None:
            await end_child(child)

    def _move(self, model: HostedModel, state: str) -> None:
        model.state = state
        if state in ("RUNNING", "STOPPED"):
            model.settled.set()
        message = message_of("update", [model])
        for listener in self._listeners:
            listener.put_nowait(message)

    async def _serve_coordinator(self, connection: ServerConnection) -> None:
        path = unquote(connection.request.path) if connection.request else ""
        if path != f"/{self._crunch_id}":
            await connection.send(msgspec.json.encode({"error": f"unknown crunch {path!r}"}).decode())
            return
        may_report = self._may_report(connection)
        messages: asyncio.Queue[str] = asyncio.Queue()
        running = [model for model in self.models.values() if model.state == "RUNNING"]
        messages.put_nowait(message_of("init", running))
        self._listeners.add(messages)  # no await since `init` was made: no update can fall between them
        sender = asyncio.create_task(send_all(connection, messages))
        try:
            async for text in connection:
                reports = reports_in(text)
                if reports and not may_report:
                    log.warning(
                        "a report of a failure does not come from the coordinator, and is ignored: %s", TOKEN
                    )
                    continue
                self._report(reports)
        except websockets.ConnectionClosed:
            log.info("a coordinator disconnected")
        finally:
            self._listeners.discard(messages)
            sender.cancel()

    def _may_report(self, connection: ServerConnection) -> bool:
        """Whether failure reports on this connection are obeyed: a coordinator may stop models, a rival model may not.

        A connection that shows the token is a coordinator's. If the host has no token, every connection may report, but
        only while all models are kept from the network: then none of them can be at the other end.
        """
        if self._token and connection.request is not None:
            shown = connection.request.headers.get("Authorization", "")
            return hmac.compare_digest(shown.encode(), f"Bearer {self._token}".encode())
        return not self.unconfined

    def _report(self, reports: list[Report]) -> None:
        for report in reports:
            model = self.models.get(report.model_id)
            if model is None or report.ip != model.ip or model.state == "STOPPED":
                log.warning(
                    "a report of a failure names no running model, and is ignored: %s", report.model_id
                )
                continue
            self._stop_model(model, Failure(report.failure_code, report.failure_reason or "no reason given"))
