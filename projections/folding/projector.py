"""The projector: reads all topics without a group, folds them, and lets callers wait until something is folded.

A shell. Positions come from the stores; nothing is committed to Kafka. It folds in slices of SLICE_SECONDS with a
commit after each, and gives the event loop back in between, so that the API in the same process keeps answering.

At an event that this version cannot read, it stops with an error that names the record. If records are waiting and none
was read for STALL_SECONDS_MAX, it ends with an error: a client library that died silently needs a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import PARTITION, fetched, make_reader, offsets_of, stop_reader
from coordinator.infra.kafka.probe import until_kafka_answers, why_silent
from coordinator.infra.log.positions import PipelineWatch, event_time, read_tails
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.past_cutter import PastCutter
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.prediction_rows import COUNTED
from coordinator.streams.events import RoundScored
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import (
    CoordinatorError,
    CorruptTopicError,
    LogError,
    TruncatedTopicError,
    UnknownEventError,
    WorldError,
)
from coordinator.streams.settings import Settings
from coordinator.streams.topology import BY_TOPIC, STREAMS, topic_name

CONNECT_SECONDS_MAX = 60.0
STALL_SECONDS_MAX = 60.0
SLICE_SECONDS = 0.02
POLL_MS = 200
TAIL_RECORDS_AT_START = 8
RECORDS_PER_POLL = 500
_log = structlog.get_logger()


class StalledError(CoordinatorError):
    """Records are waiting, but none was read for STALL_SECONDS_MAX."""


class StageFigures(msgspec.Struct):
    """How far a stage's topic is, in ms; None: not known.

    `decided_at` is the event time of its last decision that holds events, `written_at` the wall-clock time at which its
    last record was written.
    """

    decided_at: int | None = None
    written_at: int | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The projector's progress now. `lag`: topic -> records not read yet. Ages are seconds by the loop's clock."""

    ok: bool
    started: bool
    lag: dict[str, int]
    positions: dict[str, int]
    events: int
    duplicates_ignored: int
    last_fold_seconds_ago: float | None
    error: str | None


async def assign_from(
    consumer: AIOKafkaConsumer, crunch_id: str, starts: Mapping[str, int]
) -> tuple[dict[TopicPartition, str], dict[str, int]]:
    """Assign the crunch's topics and seek to `starts`; returns (partition -> topic, topic -> end offset).

    Raises TruncatedTopicError when a topic does not hold the offset where reading continues, WorldError when topics are
    missing for CONNECT_SECONDS_MAX.
    """
    partitions = {TopicPartition(topic_name(crunch_id, topic), PARTITION): topic for topic in starts}
    async with asyncio.timeout(CONNECT_SECONDS_MAX) as timeout:
        try:
            while missing := {partition.topic for partition in partitions} - set(await consumer.topics()):
                _log.info("waiting_for_topics", missing=sorted(missing))
                await asyncio.sleep(1.0)
            begins, ends = await offsets_of(consumer, partitions)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise WorldError(
                f"topics of {crunch_id} are missing: create them with `coordinator topics create`"
            ) from error
    for partition, topic in partitions.items():
        if begins[partition] > starts[topic] or ends[partition] < starts[topic]:
            raise TruncatedTopicError(
                f"topic {partition.topic} holds offsets {begins[partition]} to {ends[partition]}, but "
                f"{starts[topic]} is needed: the topic was cut or created again"
            )
        consumer.seek(partition, starts[topic])
    return partitions, {topic: ends[partition] for partition, topic in partitions.items()}


class Projector:
    """Folds the topics into the read models until stopped. Tests feed it with `take` instead of `run`."""

    def __init__(self, settings: Settings, read_models: ReadModels) -> None:
        self.settings = settings
        self.read = read_models
        self.folder = Folder(read_models.all())
        self.cutter = PastCutter(read_models, settings.past_days)
        self.watch = PipelineWatch(settings.crunch_id)
        """What each stage must decide and has decided, of the records read since this start."""
        self.folder.on_decision = self._watch
        self.stages = {stream.topic: StageFigures() for stream in STREAMS if stream.enveloped}
        self.on_scored: Callable[[RoundScored], None] | None = None
        """Called with each round that is scored, as it is folded."""
        self.on_decided: Callable[[Decision, int], None] | None = None
        """Called with each decision, as it is folded, and the wall-clock time in ms at which Kafka got it."""
        self._written_ms: Mapping[str, Mapping[int, int]] = {}
        self.error: BaseException | None = None
        self._ends: dict[str, int] = {}
        self._last_fold: float | None = None
        self._last_progress = 0.0
        self._started = False
        self._stopping = False
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def run(self) -> None:
        """Read and fold until `stop`. Raises LogError naming the record, StalledError; at the start WorldError."""
        consumer = make_reader(self.settings.kafka_bootstrap)
        try:
            await self._start(consumer)
            starts = self.folder.positions()
            partitions, self._ends = await assign_from(consumer, self.settings.crunch_id, starts)
            await self._look_at_tails()
            self._last_progress = asyncio.get_running_loop().time()
            self._started = True
            _log.info("projector_started", positions=starts, lag=sum(self.lag().values()))
            while not self._stopping:
                await self._poll(consumer, partitions)
        except LogError as error:
            self.error = error
            _log.error("projector_stopped", reason=str(error))
            raise
        except CoordinatorError as error:
            self.error = error
            raise
        finally:
            await stop_reader(consumer)

    async def _start(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async for attempt in until_kafka_answers(CONNECT_SECONDS_MAX, 2.0):
                with attempt:
                    await consumer.start()
        except (KafkaError, OSError) as error:
            bootstrap = self.settings.kafka_bootstrap
            reason = await why_silent(bootstrap) or error
            raise WorldError(f"Kafka at {bootstrap} did not answer: {reason}") from error

    async def _look_at_tails(self) -> None:
        """Find out when each stage last wrote: a stage that stopped before this start sends no new record that says."""
        settings = self.settings
        try:
            tails = await read_tails(settings.kafka_bootstrap, settings.crunch_id, TAIL_RECORDS_AT_START)
        except (UnknownEventError, CorruptTopicError):
            return  # folding will stop at that record and name it; until then the records before it are served
        for tail in tails:
            if tail.topic in self.stages:
                self.stages[tail.topic] = StageFigures(tail.decided_at, tail.written_at)

    async def _poll(self, consumer: AIOKafkaConsumer, partitions: Mapping[TopicPartition, str]) -> None:
        batches = await fetched(consumer, POLL_MS, RECORDS_PER_POLL)
        for partition, topic in partitions.items():
            self._ends[topic] = max(self._ends[topic], consumer.highwater(partition) or 0)
        for partition, records in batches.items():
            if figures := self.stages.get(partitions[partition]):
                figures.written_at = max(figures.written_at or 0, records[-1].timestamp)
        if self.on_decided is not None:
            self._written_ms = {
                partitions[partition]: {record.offset: record.timestamp for record in records}
                for partition, records in batches.items()
            }
        await self.take_all(
            {
                partitions[partition]: [(record.offset, record.value) for record in records]
                for partition, records in batches.items()
            }
        )
        self._cut_past()
        for projection in self.read.all():
            if (
                projection.store.damage
            ):  # some reader found it; the next start sets the store aside and rebuilds it
                raise StoreDamagedError(projection.store.damage)
        now = asyncio.get_running_loop().time()
        if batches or not any(self.lag().values()):
            self._last_progress = now
        elif now - self._last_progress > STALL_SECONDS_MAX:
            waiting = {
                f"{topic} from offset {self.folder.positions()[topic]}": count
                for topic, count in self.lag().items()
                if count
            }
            raise StalledError(
                f"nothing was read for {STALL_SECONDS_MAX:g} s though records are waiting: {waiting}"
            )

    async def take(self, topic: str, records: list[tuple[int, bytes | None]]) -> None:
        """`take_all` of one topic."""
        await self.take_all({topic: records})

    async def take_all(self, batches: Mapping[str, list[tuple[int, bytes | None]]]) -> None:
        """Fold records by topic in slices, and wake the callers that wait. Raises UnknownEventError.

        One commit takes all topics: each costs every read model a write, however few records there are.
        """
        slice_end = time.perf_counter() + SLICE_SECONDS
        try:
            for topic, records in batches.items():
                for offset, value in records:
                    self.folder.fold(topic, offset, value)
                    if time.perf_counter() >= slice_end:
                        self._commit()
                        await asyncio.sleep(0)
                        slice_end = time.perf_counter() + SLICE_SECONDS
        finally:
            self._commit()  # also what was folded before an unreadable record

    def _cut_past(self) -> None:
        """Cut for one slice of time at most. How much that is does not matter: what is cut follows from the log."""
        slice_end = time.perf_counter() + SLICE_SECONDS
        unread = {topic for topic, count in self.lag().items() if count}
        while self.cutter.step(unread) and time.perf_counter() < slice_end:
            pass

    def _watch(self, decision: Decision) -> None:
        if BY_TOPIC[decision.topic].enveloped:
            self.watch.take(decision)
            if (decided_at := event_time(decision)) is not None:
                self.stages[decision.topic].decided_at = decided_at
            if self.on_scored is not None and decision.topic == "scores":
                for event in decision.events:
                    if isinstance(event, RoundScored):
                        self.on_scored(event)
            if self.on_decided is not None:
                written_ms = self._written_ms.get(decision.topic, {}).get(decision.offset)
                if written_ms is not None:
                    self.on_decided(decision, written_ms)

    def _commit(self) -> None:
        self.folder.commit()
        self._last_fold = asyncio.get_running_loop().time()
        for waiting in list(self._waiting):
            condition, future = waiting
            if future.done() or condition():
                self._waiting.remove(waiting)
                if not future.done():
                    future.set_result(None)

    async def wait_until(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait until `condition` over the folded state is true; False if it is not within the time."""
        if condition():
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (condition, future)
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            return False
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return True

    def stop(self) -> None:
        """Let `run` end after the current batch, and who waits for news go."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def lag(self) -> dict[str, int]:
        """Topic -> how many records are known to be there and not read yet."""
        return {
            topic: max(0, self._ends.get(topic, 0) - position)
            for topic, position in self.folder.positions().items()
        }

    def caught_up(self) -> bool:
        """Whether everything is folded that is known to be in the topics."""
        return self._started and not any(self.lag().values())

    def health(self) -> Health:
        """The progress now. It is not ok before the start, after an error, or if records wait and none was read for
        half of STALL_SECONDS_MAX.
        """
        now = asyncio.get_running_loop().time()
        lag = self.lag()
        stalled = any(lag.values()) and now - self._last_progress > STALL_SECONDS_MAX / 2
        return Health(
            ok=self._started and self.error is None and not stalled,
            started=self._started,
            lag=lag,
            positions=self.folder.positions(),
            events=self.folder.events,
            duplicates_ignored=self.folder.uncounted,
            last_fold_seconds_ago=None if self._last_fold is None else round(now - self._last_fold, 3),
            error=None if self.error is None else str(self.error),
        )

    def positions(self) -> dict[str, int]:
        """Topic -> the offset where folding continues."""
        return self.folder.positions()

    def claims(self) -> dict[str, int]:
        """Topic of one writer -> how often it was claimed since its first record."""
        return self.folder.claims()

    def holes(self) -> dict[str, str]:
        """Topic -> a sentence that names the missing decision; topics without a hole are left out."""
        return self.folder.holes()

    def garbage(self) -> dict[str, int]:
        """Topic -> offset of its last record that is no append of any version; topics without one are left out."""
        return self.folder.garbage()

    @property
    def events_folded(self) -> int:
        """How many events were folded since this start."""
        return self.folder.events

    @property
    def uncounted(self) -> int:
        """How many records do not count: repeated sends, late appends of former owners, garbage."""
        return self.folder.uncounted

    def has_folded(self, read_model: str) -> bool:
        """Whether the read model of this name has read anything, in this start or an earlier one."""
        return any(
            projection.name == read_model and projection.store.positions for projection in self.read.all()
        )

    def state_hashes(self) -> dict[str, str]:
        """Projection -> state_hash, as of the last commit."""
        return {projection.name: projection.store.state_hash for projection in self.read.all()}

    def committed(self) -> dict[str, dict[str, int]]:
        """Projection -> topic -> next offset, as of the last commit: all records before it are in its state_hash."""
        return {
            projection.name: {topic: need.offset for topic, need in projection.store.positions.items()}
            for projection in self.read.all()
        }

    def summary(self) -> dict[str, Any]:
        """Counts over the folded events, with the state hashes and the positions that belong to them."""
        totals = self.read.predictions.totals()
        return {
            "feed_records": self.read.feeds.counted("feeds", "records"),
            "inputs": {name: totals[name] for name in ("received", "resolved")},
            "predictions": {name: totals[name] for name in COUNTED},
            "snapshots": self.read.snapshots.counted("snapshots", "taken"),
            "dead_letters": self.read.dead_letters.total(),
            "refused_commands": self.read.dead_letters.counted("checkpoints", "refused"),
            "illegal_transitions": sum(
                projection.counted(topic, "illegal")
                for projection in self.read.all()
                for topic in projection.topics
            ),
            "duplicates_ignored": self.folder.uncounted,
            "state_hash": self.state_hashes(),
            # Read together with the hashes: who folds the topics up to these positions must get the same hashes.
            "positions": self.committed(),
        }
