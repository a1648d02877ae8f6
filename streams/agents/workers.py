"""The workers: each takes the settings, and runs as a process until SIGTERM.

`feed` runs the sources and the input stage, `predict` asks the models, `score` runs the score and the snapshot stage,
`checkpoint` the checkpoint stage. Each stage has its own Faust app and keeper. A worker ends when it is told to, or
with an error.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import faust
import structlog
from aiokafka.errors import KafkaError

from coordinator.infra.blobs.store_by_settings import is_shared, store_of
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.kafka.groups import settled_group
from coordinator.infra.models.crash_notes import CrashNotes
from coordinator.infra.ntp import ntp_time_ms
from coordinator.infra.operator_files import check_files
from coordinator.infra.processes.ending import end_when_told
from coordinator.infra.processes.json_logs import name_crunch, set_up_logging
from coordinator.infra.processes.loop_watch import watch_loop
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade, make_witness
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.faust_app import end_process, stage_app
from coordinator.streams.agents.owning.keeper import Keeper
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.events import Terms
from coordinator.streams.feeds.clock_witness import Witness
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.errors import OperatorError, WorldError, text_of
from coordinator.streams.ports import FeedSource
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from
from coordinator.streams.topology import topic_name

ALIVE_SECONDS = 2.0
"""How often it is checked that Faust's apps still run."""
READY_SECONDS = 10.0
"""How often a standby uses the connections that it keeps; and how long after its start it opens them, because who is
alone has its stages by then."""

log = structlog.get_logger()


class Worker:
    """One process: its stages, each with a Faust app and a keeper, and its background tasks."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.io = KafkaLog(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir)
        self.owner = f"{os.uname().nodename}-{os.getpid()}"
        self.contracts = NodeContracts(settings)
        self.shelf = self.contracts.shelf
        self.dead_letters = DeadLetters(self.io, name)
        self.apps: list[faust.App] = []
        self.keepers: list[Keeper] = []
        self.tasks: list[Coroutine[Any, Any, None]] = [
            self.dead_letters.run(),
            self.io.watch(),
            self._keep_ready(),
        ]
        self.closing: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def keep(self, stage_name: str, driver: str, new_tenure: Callable[[], Tenure]) -> None:
        """Add a stage that is driven by the topic `driver`. `new_tenure` is called for each claim."""
        # A member that the group has dropped learns it within one session. If the group says nothing for longer, the
        # partition is still assigned to this process.
        settings = self.settings
        group, topic = f"{settings.crunch_id}-{stage_name}", topic_name(settings.crunch_id, driver)
        keeper = Keeper(
            stage_name,
            new_tenure,
            1.5 * settings.session_timeout_seconds,
            ask_group=lambda: settled_group(settings.kafka_bootstrap, group, topic),
        )
        self.apps.append(
            stage_app(self.settings, stage_name, driver, keeper, self.dead_letters.say_log_fault)
        )
        self.keepers.append(keeper)
        self.tasks.append(keeper.run())

    async def _keep_ready(self) -> None:
        """Keep connections open while a stage is another process's: its claim must not wait until they are."""
        while True:
            await asyncio.sleep(READY_SECONDS)
            if not any(keeper.stands_by for keeper in self.keepers):
                if all(keeper.is_open for keeper in self.keepers):  # until then a claim may use them
                    await self.io.end_ready()
                continue
            try:
                await self.io.keep_ready()
            except (KafkaError, OSError, WorldError) as error:
                log.info("not_ready", reason=text_of(error))

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until a task ends with an exception."""
        stop = asyncio.Event()
        end_when_told(stop)
        await self.run_until(stop)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, or until a task ends with an exception."""
        watching = watch_loop(self.settings.health_file)
        tasks = [asyncio.create_task(work) for work in [*self.tasks, self._drive(), watching]]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            if not task.cancelled() and (error := task.exception()) is not None:
                await self.dead_letters.say_log_fault(error)
            task.result()
        await self._stop(tasks)
        log.info("worker_stopped", pid=os.getpid())

    async def _drive(self) -> None:
        """Start Faust's apps and watch them, because an app that crashes reports it to nobody.

        Raises WorldError then.
        """
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
        await asyncio.gather(
            *(app.stop() for app in self.apps)
        )  # each leaves its group: none waits for another's


def _feed(worker: Worker) -> None:
    settings = worker.settings
    source_of_feed: dict[tuple[str, str, str], tuple[FeedSource, Witness]] = {}

    def source_of(followed: Settings) -> tuple[FeedSource, Witness]:
        """One of each feed in a process: a new witness would believe whatever the clock shows."""
        feed = followed.feed_source, followed.feed_kind, followed.feed_granularity
        if feed not in source_of_feed:
            source = _source(followed, worker.dead_letters)
            source_of_feed[feed] = source, make_witness(followed, source)
        return source_of_feed[feed]

    source, witness = source_of(settings)

    def new_terms() -> Terms:
        return worker.contracts.terms_under(worker.contracts.proposed, None)

    worker.keep(
        "input",
        "feeds",
        lambda: FeedTenure(
            worker.io,
            InputStage(worker.shelf),
            worker.owner,
            settings,
            Intake(source, worker.dead_letters, witness, source_of),
            TermsMade(new_terms, worker.contracts),
            MachineTime(ntp=ntp_time_ms),
        ),
    )


def _source(settings: Settings, dead_letters: DeadLetters) -> FeedSource:
    if settings.feed_source == "candles" and not settings.feed_candles_file:
        raise OperatorError(
            "the rules in force use a file of candles, but none is given: give it (--candles, FEED_CANDLES_FILE), "
            "or apply another feed while the node is stopped: FEED_SOURCE=.. coordinator contract apply"
        )
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
    asked = ModelsAsked(gateway, in_hand=CrashNotes(settings.data_dir / "predict.in-hand"))
    blobs = store_of(settings)

    async def start_gateway() -> None:
        await gateway.start()
        await asyncio.Event().wait()

    worker.tasks.append(start_gateway())
    worker.closing.append(gateway.stop)
    worker.keep(
        "predict",
        "inputs",
        lambda: PredictTenure(
            worker.io,
            worker.owner,
            asked,
            worker.shelf,
            worker.dead_letters.from_topic,
            blobs=blobs,
        ),
    )


def _cert_dir(variable: str, folder: str, *files: str) -> str | None:
    """The folder; None if none is set. Raises OperatorError naming a file in it that cannot be read."""
    check_files(variable, folder, files)
    return folder or None


def _gateway_key(folder: str) -> bytes | None:
    cert_dir = _cert_dir("GATEWAY_CERT_DIR", folder, "key.pem")
    return None if cert_dir is None else (Path(cert_dir) / "key.pem").read_bytes()


def _score(worker: Worker) -> None:
    blobs = store_of(worker.settings)

    def tenure() -> Tenure:
        stage = ScoreStage(worker.shelf, blobs=blobs)
        return Tenure(worker.io, stage, worker.owner, decides_in_thread=is_shared(worker.settings))

    worker.keep("score", "inputs", tenure)
    worker.keep("aggregate", "scores", lambda: Tenure(worker.io, SnapshotStage(worker.shelf), worker.owner))


def _checkpoint(worker: Worker) -> None:
    settings = worker.settings

    def tenure() -> Tenure:
        stage = CheckpointStage(
            settings.crunch_id, worker.shelf, settle_rehearsals=settings.settle_rehearsals
        )
        # Records in `commands` that are no commands go to the dead letters.
        return Tenure(worker.io, stage, worker.owner, worker.dead_letters.from_topic)

    worker.keep("checkpoint", "snapshots", tenure)


_SET_UP: dict[str, Callable[[Worker], None]] = {
    "feed": _feed,
    "predict": _predict,
    "score": _score,
    "checkpoint": _checkpoint,
}


def run_worker(name: str, settings: Settings) -> None:
    """Run one of feed, predict, score, checkpoint until SIGTERM, then end the process with an exit code.

    0: it was told to stop. 2: the operator must change something, and one line says what. 70: a bug, or a log
    that this version must not continue.
    """

    async def main() -> None:
        try:
            worker = Worker(settings, name)
            _SET_UP[name](worker)
            await worker.run()
        except Exception as error:  # noqa: BLE001 - the process's edge: every error is reported and ends it
            end_process(name, error)
        end_process(name, None)  # inside the loop, whose own end would wait for the threads of Faust and gRPC

    set_up_logging(name)
    name_crunch(settings.crunch_id)
    asyncio.run(main())
