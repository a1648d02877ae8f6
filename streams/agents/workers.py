"""The workers: settings in, a running process until SIGTERM.

`feed`: sources and the input stage. `predict`: the models. `score`: score and aggregate. `checkpoint`.
Each stage has its own Faust app and keeper; a worker ends when told to, or loudly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import faust
import structlog

from coordinator.infra.contracts.node import NodeContracts
from coordinator.infra.kafka.groups import is_dealt_to_nobody
from coordinator.infra.models.in_hand import InHand
from coordinator.infra.ntp import ntp_time_ms
from coordinator.infra.operator_files import check_files
from coordinator.infra.processes.json_logs import set_up_logging
from coordinator.infra.processes.loop_watch import watch_loop
from coordinator.streams.agents.feed.worker import FeedTenure, make_witness
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.faust_app import end_process, stage_app
from coordinator.streams.agents.owning.keeper import Keeper
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.events import Terms
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.errors import WorldError
from coordinator.streams.ports import FeedSource, ModelNotice
from coordinator.streams.predictions.strikes import Strikes
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from
from coordinator.streams.topology import topic_name

STOP_SECONDS_MAX = 6.0
ALIVE_SECONDS = 2.0
"""How often Faust's apps are looked at."""

log = structlog.get_logger()


class Worker:
    """One process: its stages, each kept by a Faust app, and what runs beside them."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.io = KafkaLog(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir)
        self.owner = f"{os.uname().nodename}-{os.getpid()}"
        self.contracts = NodeContracts(settings)
        self.shelf = self.contracts.shelf
        self.dead_letters = DeadLetters(self.io, name)
        self.apps: list[faust.App] = []
        self.tasks: list[Coroutine[Any, Any, None]] = [self.dead_letters.run(), self.io.watch()]
        self.closing: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def keep(self, stage_name: str, driver: str, new_tenure: Callable[[], Tenure]) -> None:
        """Keep one stage, driven by the topic `driver`."""
        # A member that the group has dropped learns it within a session; longer than that, silence means "yours".
        settings = self.settings
        group, topic = f"{settings.crunch_id}-{stage_name}", topic_name(settings.crunch_id, driver)
        keeper = Keeper(
            stage_name,
            new_tenure,
            1.5 * settings.session_timeout_seconds,
            is_orphan=lambda: is_dealt_to_nobody(settings.kafka_bootstrap, group, topic),
        )
        self.apps.append(
            stage_app(self.settings, stage_name, driver, keeper, self.dead_letters.say_log_fault)
        )
        self.tasks.append(keeper.run())

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until a task ends with an exception."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, stop.set)
        await self.run_until(stop)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, or until a task ends with an exception."""
        watching = watch_loop(self.settings.health_file)
        tasks = [asyncio.create_task(one) for one in [*self.tasks, self._drive(), watching]]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            if not task.cancelled() and (error := task.exception()) is not None:
                await self.dead_letters.say_log_fault(error)
            task.result()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop(tasks), STOP_SECONDS_MAX)
        log.info("worker_stopped", pid=os.getpid())

    async def _drive(self) -> None:
        """Start Faust, and watch it: an app that crashes inside tells nobody. Raises WorldError then."""
        await self.io.connect()
        for app in self.apps:
            app.finalize()
        await asyncio.gather(*(app.start() for app in self.apps))
        log.info("worker_started", pid=os.getpid())
        while True:
            for app in self.apps:
                if app.should_stop:
                    message = f"Faust's app {app.conf.id} ended: {app.crash_reason!r}"
                    raise WorldError(message)
            await asyncio.sleep(ALIVE_SECONDS)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for close in self.closing:
            await close()
        for app in self.apps:
            await app.stop()


def _feed(worker: Worker) -> None:
    settings = worker.settings
    source = _source(settings, worker.dead_letters)
    witness = make_witness(settings, source)

    def new_terms() -> Terms:
        return worker.contracts.terms_under(worker.contracts.proposed)

    worker.keep(
        "input",
        "feeds",
        lambda: FeedTenure(
            worker.io,
            InputStage(worker.shelf),
            worker.owner,
            settings,
            source,
            new_terms,
            worker.dead_letters,
            contracts=worker.contracts,
            ntp=ntp_time_ms,
            witness=witness,
        ),
    )


def _source(settings: Settings, dead_letters: DeadLetters) -> FeedSource:
    if settings.feed_candles_file:
        return source_by_name("candles", candle_options(settings), dead_letters.from_source)
    if settings.feed_source == "generated":
        options = {"seed": str(settings.feed_seed)}
    else:
        options = options_from(os.environ, settings.feed_source)
    return source_by_name(settings.feed_source, options, dead_letters.from_source)


def candle_options(settings: Settings) -> dict[str, str]:
    """The options of the source `candles` for the file that the settings name."""
    return {
        "path": settings.feed_candles_file,
        "columns": settings.feed_columns,
        "stamp": settings.feed_stamp,
        "any_price": str(settings.feed_any_price).lower(),
    }


def _predict(worker: Worker) -> None:
    from coordinator.infra.models.gateway import Credentials, RunnerClientGateway  # noqa: PLC0415 - brings gRPC

    settings = worker.settings
    gateway = RunnerClientGateway(
        settings.model_runner_node_host,
        settings.model_runner_node_port,
        settings.crunch_id,
        settings.model_base_classname,
        Credentials(
            secure_cert_dir=_cert_dir(
                "SECURE_CERT_DIR", settings.secure_cert_dir, "ca.crt", "tls.crt", "tls.key"
            ),
            gateway_key_pem=_gateway_key(settings.gateway_cert_dir),
            token=settings.model_runner_node_token.get_secret_value(),
        ),
        call_seconds_max=settings.model_runner_timeout_seconds,
    )
    noticed: list[ModelNotice] = []
    strikes = Strikes()
    in_hand = InHand(settings.data_dir / "predict.in-hand")

    async def start_gateway() -> None:
        await gateway.start()
        await asyncio.Event().wait()

    worker.tasks.append(start_gateway())
    worker.closing.append(gateway.stop)
    worker.keep(
        "predict",
        "inputs",
        lambda: PredictTenure(
            worker.io, worker.owner, gateway, worker.shelf, noticed, strikes=strikes, in_hand=in_hand
        ),
    )


def _cert_dir(variable: str, folder: str, *files: str) -> str | None:
    """The folder, None where none is set. Raises OperatorError naming the file that cannot be read."""
    check_files(variable, folder, files)
    return folder or None


def _gateway_key(folder: str) -> bytes | None:
    found = _cert_dir("GATEWAY_CERT_DIR", folder, "key.pem")
    return None if found is None else (Path(found) / "key.pem").read_bytes()


def _score(worker: Worker) -> None:
    worker.keep("score", "inputs", lambda: Tenure(worker.io, ScoreStage(worker.shelf), worker.owner))
    worker.keep("aggregate", "scores", lambda: Tenure(worker.io, SnapshotStage(worker.shelf), worker.owner))


def _checkpoint(worker: Worker) -> None:
    settings = worker.settings

    def tenure() -> Tenure:
        stage = CheckpointStage(
            settings.crunch_id, worker.shelf, settle_rehearsals=settings.settle_rehearsals
        )
        # What stands in `commands` and is no command goes to the dead letters.
        return Tenure(worker.io, stage, worker.owner, worker.dead_letters.from_topic)

    worker.keep("checkpoint", "snapshots", tenure)


_SET_UP: dict[str, Callable[[Worker], None]] = {
    "feed": _feed,
    "predict": _predict,
    "score": _score,
    "checkpoint": _checkpoint,
}


def run_worker(name: str, settings: Settings) -> None:
    """Run one of feed, predict, score, checkpoint until SIGTERM; ends the process with an exit code.

    0: told to stop. 2: the operator must change something (one line says what). 70: a bug of ours, or a log that
    this version may not go on with.
    """

    async def main() -> None:
        try:
            worker = Worker(settings, name)
            _SET_UP[name](worker)
            await worker.run()
        except Exception as error:  # noqa: BLE001 - the process's edge: every error ends it, said
            end_process(name, error)
        end_process(name, None)  # from inside: the loop's own end would wait for Faust's and gRPC's threads

    set_up_logging(name)
    asyncio.run(main())
