"""A node on this machine: starts all its processes, keeps them running, and ends them together.

Reads a plan; prints lines and a table for people, writes `node.json` for the other commands and a summary at the end.
What is independent starts in parallel: the workers import their modules (seconds of CPU) while the broker formats its
log and starts and while Binance is probed. The workers get their settings through stdin once the topics exist.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import typer

from coordinator.cli.node_end import until_decided, write_summary
from coordinator.cli.node_kafka import prepared_broker, until_kafka_listens
from coordinator.cli.screen import Screen
from coordinator.cli.shared import NODE_FILE, node_of, quiet_libraries, time_text, write_node_file
from coordinator.cli.up_plan import CHOSEN_BY_US, Plan
from coordinator.cli.worker import REPORT
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.memory import LogMemoryFile
from coordinator.infra.models.host.confine import NOT_CONFINED, TOKEN, hide_from_others, scrubbed_environment
from coordinator.infra.processes.children import BrokerProcess, Launch, LoggedProcess
from coordinator.infra.processes.data_dir import claim_data_dir
from coordinator.infra.processes.fork_server import ForkServer
from coordinator.infra.processes.open_files import OPEN_FILES_WANTED, allow_open_files, too_few_open_files
from coordinator.infra.processes.sockets import HeldPorts, told
from coordinator.infra.processes.supervisor import Supervisor
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import environment
from coordinator.streams.topology import WORKERS

PROBE_SECONDS = 3.0
MODELS_HTTP_PORT = 8001
LISTEN_SECONDS_MAX = 120.0


def run_node(plan: Plan, workers: ForkServer) -> None:
    """Run until Ctrl-C, SIGTERM or the plan's end; blocking. `workers` forks the worker processes.

    Raises OperatorError and WorldError.
    """
    quiet_libraries()
    hide_from_others()
    settings = plan.settings
    with claim_data_dir(settings.data_dir, settings.crunch_id, on_wait=partial(typer.echo, err=True)):
        screen = Screen(fresh=not (settings.data_dir / NODE_FILE).exists())
        try:
            if plan.embedded:
                _fetch(screen)
                screen.restart_clock()
            asyncio.run(Node(plan, screen, workers).run())
        except KeyboardInterrupt:
            screen.say("stopped before anything was started")


def _fetch(screen: Screen) -> None:
    """Fetch jars, Java and the start-up cache. The first run takes minutes, and it blocks: no event loop runs yet."""
    from coordinator.infra.fetch import ensure_runtime, progress_bars  # noqa: PLC0415

    with progress_bars(screen.console) as progress:
        ensure_runtime(progress)


class Node:
    """One run of `coordinator up`; call `run()` once."""

    def __init__(self, plan: Plan, screen: Screen, workers: ForkServer) -> None:
        self.plan = plan
        self._workers = workers
        # A new token for each run, told to the predict worker and the model host alone. A model that connects to the
        # host does not have it, and cannot report a rival's failure.
        self.settings = plan.settings.changed(model_runner_node_token=secrets.token_urlsafe(32))
        self.screen = screen
        self._ports = HeldPorts(screen.say)
        self._stop = asyncio.Event()
        self._replayed = asyncio.Event()
        self._models_listen = asyncio.Event()
        self._api_answers = asyncio.Event()  # before this its port answers 503
        self._began = monotonic()
        self._shadow: subprocess.Popen[bytes] | None = None
        # Not in the data directory: on a full disk every worker would look as if it hung.
        self._alive_folder = tempfile.TemporaryDirectory(prefix="coordinator-alive-")
        self._alive = Path(self._alive_folder.name)

    def _hold_ports(self) -> None:
        settings = self.settings
        api, models = settings.api_host, settings.model_runner_node_host
        self.settings = settings.changed(
            api_port=self._ports.hold(
                api, settings.api_port, "--port", "the API", named=self.plan.api_port_named
            ),
            model_runner_node_port=self._ports.hold(
                models,
                settings.model_runner_node_port,
                "MODEL_RUNNER_NODE_PORT",
                "the model host",
                named=False,
            ),
        )

    async def run(self) -> None:
        """Start the node, keep it running, end it.

        Raises OperatorError when a child says that the operator must change something.
        """
        self.supervisor = Supervisor(self.screen.say)
        self._workers_environ: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        work = asyncio.create_task(self._work())
        asked = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((work, asked, self.supervisor.failure), return_when=asyncio.FIRST_COMPLETED)
            if self.supervisor.failure.done():
                self.supervisor.failure.result()
            if work.done():
                work.result()
            elif self.plan.summary is not None:
                self.screen.say(f"asked to end before the run was over: {self.plan.summary} is not written")
        finally:
            asked.cancel()
            work.cancel()
            self.screen.close()
            await asyncio.gather(work, asked, return_exceptions=True)
            self.screen.say("ending every process")
            await self.supervisor.stop()
            self._workers.stop()
            if self._shadow is not None:
                self._shadow.terminate()
                self._shadow.wait()
            self._ports.close()
            self._alive_folder.cleanup()
            self.screen.say("ended")

    def _on_signal(self) -> None:
        if self._stop.is_set():  # the second signal: do not wait for a clean end
            self.supervisor.kill_all()
        self._stop.set()

    async def _work(self) -> None:
        await self._start()
        board = asyncio.create_task(self.screen.show(self.settings, self.supervisor.states))
        try:
            await self._until_over()
        finally:
            board.cancel()
            with suppress(asyncio.CancelledError):
                await board
        self.screen.close()
        if self.plan.summary is not None:
            await self._summarize(self.plan.summary)

    # --- starting ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        plan, supervisor = self.plan, self.supervisor
        for remark in plan.remarks:
            self.screen.say(remark)
        if (allowed := allow_open_files()) < OPEN_FILES_WANTED:
            self.screen.say(too_few_open_files(allowed))
        if not plan.embedded:
            from coordinator.infra.log.positions import reading  # noqa: PLC0415 - a sixth of a second, seldom needed

            async with reading(self.settings.kafka_bootstrap):
                pass  # raises at once if no Kafka answers, before anything was started
        self._hold_ports()
        feed = asyncio.create_task(self._feed_source())
        preparing = asyncio.create_task(prepared_broker(self.settings)) if plan.embedded else None
        for name in sorted(WORKERS, key=lambda name: name != REPORT):  # people look at the page first
            supervisor.keep(self._worker(name))
        if preparing is not None:
            broker = await preparing
            kafka = BrokerProcess(broker)
            supervisor.keep(kafka, last=True)
            await until_kafka_listens(broker, self.settings.crunch_id, supervisor.states, self.screen.say)
            kafka.is_known = True
            self.settings = self.settings.changed(kafka_bootstrap=broker.bootstrap)
        supervisor.keep(
            self._model_host()
        )  # not earlier: on two cores Kafka and the workers' imports come first
        memory = LogMemoryFile(self.settings.data_dir, self.settings.crunch_id).read()
        await create_topics(self.settings.kafka_bootstrap, self.settings.crunch_id, memory=memory)
        self.settings = self.settings.changed(feed_source=await feed)
        self._workers_environ.set_result(environment(self.settings))
        self._write_node_file()
        supervisor.on_change(self._write_node_file)
        await told(self._api_answers, "the API", LISTEN_SECONDS_MAX)
        self.screen.say(f"the page is http://{self.settings.api_host}:{self.settings.api_port}/")
        await told(self._models_listen, "the model host", LISTEN_SECONDS_MAX)
        self.screen.say(f"the whole node listens, {monotonic() - self._began:.1f} s after the start")
        self._resume_shadow()

    def _resume_shadow(self) -> None:
        """Begin a shadow again that was on when its process ended. It is no child to keep: the node needs none."""
        if not (self.settings.data_dir / "shadow").exists():
            return
        from coordinator.cli.shadow_spawn import resume_shadow  # noqa: PLC0415 - brings the engine, seldom needed

        try:
            self._shadow = resume_shadow(self.settings.data_dir)
        except OperatorError as error:
            self.screen.say(f"the shadow is not begun again: {error}")
            return
        if self._shadow is not None:
            self.screen.say("the shadow is begun again: `coordinator shadow status`")

    def _worker(self, name: str) -> LoggedProcess:
        settings = self.settings
        api = self._ports.socket_of(settings.api_host, settings.api_port)
        return LoggedProcess(
            name,
            Launch(
                [name],
                environ=dict(os.environ) | environment(self.settings),
                forked_by=self._workers,
                sockets=api if name == REPORT else None,
            ),
            self._log_file(name),
            on_line=lambda line: self._on_line(name, line),
            gate=lambda: self._worker_settings(name),
            alive_file=self._alive / name,
        )

    def _log_file(self, name: str) -> Path:
        return self.settings.data_dir / "logs" / f"{name}.log"

    async def _worker_settings(self, name: str) -> bytes:
        """What a worker waits for on its stdin: the settings as JSON, with the ports and the feed finally chosen."""
        worker_environ = await asyncio.shield(self._workers_environ)
        return json.dumps(worker_environ | {"HEALTH_FILE": str(self._alive / name)}).encode() + b"\n"

    def _model_host(self) -> LoggedProcess:
        settings = self.settings
        return LoggedProcess(
            "models",
            Launch(
                [
                    *(sys.executable, "-Ium", "coordinator.infra.models.host"),
                    *("--models", str(self.plan.models_dir), "--port", str(settings.model_runner_node_port)),
                    *("--crunch", settings.crunch_id, "--log-dir", str(settings.data_dir / "models")),
                    # The web app expects it at 8001; if another node has that port it takes a free one and prints it.
                    *("--http-port", str(MODELS_HTTP_PORT), "--http-port-or-any"),
                ],
                environ=scrubbed_environment() | {TOKEN: settings.model_runner_node_token.get_secret_value()},
                sockets=self._ports.socket_of(
                    settings.model_runner_node_host, settings.model_runner_node_port
                ),
            ),
            self._log_file("models"),
            on_line=lambda line: self._on_line("models", line),
        )

    async def _feed_source(self) -> str:
        """The planned source, or the one chosen now and printed: Binance if it answers, else the generated market."""
        settings = self.settings
        if settings.feed_candles_file:
            self.screen.say(f"feed: candles from {settings.feed_candles_file}")
            return settings.feed_source
        if not self.plan.choose_feed:
            return settings.feed_source
        from coordinator.streams.sources.binance.source import BinanceSource  # noqa: PLC0415

        answer = await BinanceSource().probe(PROBE_SECONDS)
        real, generated = CHOSEN_BY_US
        if answer.ok:
            self.screen.say("feed: Binance's public history of the last three days, then live")
            return real
        self.screen.say(f"feed: a generated market, since Binance does not answer ({answer.reason})")
        return generated

    def _on_line(self, name: str, line: str) -> None:
        """Read one line of a child's output for the few events that the node waits for or shows."""
        if name == "models" and line.startswith(NOT_CONFINED):
            self.screen.say(line)
        elif name == "models" and line.startswith("listening on "):
            self._models_listen.set()
        elif name == "report" and '"report_listening"' in line:
            self._api_answers.set()
        elif name == "feed" and '"contract_' in line:
            with suppress(ValueError):
                remark: dict[str, Any] = json.loads(line)
                if remark.get("event") == "contract_remark":
                    self.screen.say(str(remark.get("says")))
        elif name == "models" and line.startswith("GET /models on "):
            self.screen.say(
                f"the web app's Models page reads http://{line.removeprefix('GET /models on ').strip()}"
            )
        elif name == "feed" and '"replay_finished"' in line:
            with suppress(ValueError):
                event: dict[str, Any] = json.loads(line)
                if event.get("event") == "replay_finished":
                    self._replayed.set()
                    self.screen.say(f"replay finished at {time_text(event.get('until'))}")

    def _write_node_file(self) -> None:
        settings = self.settings
        pids = {name: state.pid for name, state in self.supervisor.states.items() if state.pid is not None}
        node = msgspec.structs.replace(
            node_of(settings),
            feed_chosen=settings.feed_source in CHOSEN_BY_US,
            pids=pids | {"up": os.getpid()},
        )
        try:
            write_node_file(settings.data_dir, node)
        except OSError as error:
            # The disk is full. The node runs on; the other commands read what the last start wrote.
            why = error.strerror or error
            self.screen.say(f"{settings.data_dir / NODE_FILE} could not be written: {why}")

    # --- ending --------------------------------------------------------------------------------------

    async def _until_over(self) -> None:
        """Return when the plan's end is reached; never, if the plan has none."""
        ends = []
        if self.plan.for_seconds is not None:
            ends.append(asyncio.create_task(asyncio.sleep(self.plan.for_seconds)))
        if self.settings.replay_until_ms is not None:
            ends.append(asyncio.create_task(self._until_folded()))
        if not ends:
            await asyncio.Event().wait()
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ends:
                task.cancel()

    async def _until_folded(self) -> None:
        """Return when the replay is over and every stage has decided all that follows from it."""
        await self._replayed.wait()
        await until_decided(self.settings, self.screen.say)

    async def _summarize(self, path: Path) -> None:
        """End the workers, so that nobody writes to the log any more, and write the summary."""
        restarts = {name: state.restarts for name, state in self.supervisor.states.items()}
        await self.supervisor.end_early()
        await write_summary(self.settings, restarts, path)
        self.screen.say(f"the summary is in {path}")
