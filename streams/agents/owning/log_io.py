"""The log as a stage's shell uses it: readers and writers of topics. Kafka implements it, and a list in tests.

Topics have their short names here (`feeds`); the Kafka adapter adds the crunch's prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from coordinator.infra.kafka.clients import (
    PARTITION,
    READ_STALL_SECONDS_MAX,
    fetched,
    make_producer,
    make_reader,
    offsets_of,
    stop_reader,
)
from coordinator.infra.log.own_log import OwnLog
from coordinator.streams.agents.owning.ready_clients import ReadyClients
from coordinator.streams.log.counting import Counter, Decision, TailCounter
from coordinator.streams.log.errors import CorruptTopicError, TruncatedTopicError, WorldError
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.topology import TOPICS, topic_name

READ_WAIT_MS = 100
READ_RECORDS_MAX = 200
"""Records per read. A stage that catches up reads its sources in turn, and holds decoded what one is ahead."""
TAIL_WAIT_MS = 500
IDLE_WAIT_MS = 1000
"""How long a read without an end waits for a new record. A record ends the wait at once; each return costs its reader a
tenth of a millisecond, and a node has a dozen such readers."""
CLOSE_SECONDS_MAX = 5.0
CONNECT_SECONDS_MAX = 30.0

log = structlog.get_logger()


class Reader(Protocol):
    """Reads one topic from an offset on."""

    first_end: int
    """The offset after the topic's last record, as of the opening of this reader: to ask again is a round trip."""

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        """The next records as (offset, value).

        With `until`: those before this offset; an empty list means that it is reached. Without: an empty list means
        that there was no new record for a moment.
        """
        ...

    async def end(self) -> int:
        """The offset after the topic's last record, as of now."""
        ...

    async def close(self) -> None: ...


class Writer(Protocol):
    """Sends records without repeating any (an idempotent producer); sends to one topic keep their order."""

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        """Queue a record. The future's result is its offset once it is durable; the future raises if it is not."""
        ...

    async def close(self) -> None: ...


class LogIO(Protocol):
    """Makes readers and writers."""

    states_often: bool
    """Whether stages record their states every few decisions, and look for them in short topics, too: the topics of a
    simulation are too short for any state else.
    """

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> Reader:
        """A reader at `offset`. With `patient` it may return records half a second late, and many at a time.

        Raises TruncatedTopicError when the topic does not hold that offset.
        """
        ...

    async def writer(self) -> Writer: ...


class KafkaReader:
    """A `Reader` on a Kafka consumer without a group.

    `prober` is a consumer that all readers share to ask for ends.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, prober: AIOKafkaConsumer, topic: str, offset: int, end: int
    ) -> None:
        self._consumer = consumer
        self._prober = prober
        self.first_end = end
        self._partition = TopicPartition(topic, PARTITION)
        self._topic = topic
        self._position = offset
        self._held: list[tuple[int, bytes]] = []

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        """See `Reader`. With `until`, raises WorldError when there is no record for READ_STALL_SECONDS_MAX."""
        waited = 0.0
        while until is None or self._position < until:
            if not self._held:
                await self._fetch(IDLE_WAIT_MS if until is None else READ_WAIT_MS)
            if self._held or until is None:
                return self._taken(until)
            waited += READ_WAIT_MS / 1000
            if waited > READ_STALL_SECONDS_MAX:
                if await self.end() > self._position:  # the broker answers, and has the record
                    raise CorruptTopicError(self._topic, self._position, f"nothing came for {waited:.0f} s")
                message = (
                    f"topic {self._topic} delivered no record at offset {self._position} for {waited:.0f} s"
                )
                raise WorldError(message)
        return []

    async def _fetch(self, wait_ms: int) -> None:
        for batch in (await fetched(self._consumer, wait_ms, READ_RECORDS_MAX)).values():
            self._held.extend((record.offset, record.value or b"") for record in batch)

    def _taken(self, until: int | None) -> list[tuple[int, bytes]]:
        """The records that are held, up to `until`; later ones stay for the next read."""
        if until is None:
            records, self._held = self._held, []
        else:
            records = [held for held in self._held if held[0] < until]
            self._held = self._held[len(records) :]
        if records:
            self._position = records[-1][0] + 1
        elif until is not None:  # the offsets up to it hold no record
            self._position = until
        return records

    async def end(self) -> int:
        """See `Reader`."""
        # On another connection: behind a fetch that waits for records, the request would wait, too.
        ends = await self._prober.end_offsets([self._partition])
        return int(ends[self._partition])

    async def close(self) -> None:
        """Stop the consumer."""
        await stop_reader(self._consumer)


class KafkaWriter:
    """A `Writer` on an idempotent producer, for the topics of one crunch."""

    def __init__(self, producer: AIOKafkaProducer, crunch_id: str) -> None:
        self._producer = producer
        self._crunch_id = crunch_id

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        """See `Writer`."""
        sent = await self._producer.send(topic_name(self._crunch_id, topic), value, partition=PARTITION)

        async def offset() -> int:
            metadata = await sent
            return int(metadata.offset)

        return asyncio.ensure_future(offset())

    async def close(self) -> None:
        """Stop the producer. Records that it still holds may be sent later; they have an old epoch and do not count."""
        stopping = asyncio.ensure_future(self._producer.stop())
        # Not cancelled if it takes long (the broker does not answer): a producer stopped half way would never end.
        stopping.add_done_callback(_log_failure)
        await asyncio.wait({stopping}, timeout=CLOSE_SECONDS_MAX)


def _log_failure(stopping: asyncio.Future[None]) -> None:
    if not stopping.cancelled() and stopping.exception() is not None:
        log.warning("producer_not_closed", error=str(stopping.exception()))


class KafkaLog:
    """`LogIO` on a Kafka cluster."""

    states_often = False

    def __init__(self, bootstrap: str, crunch_id: str, data_dir: Path | None = None) -> None:
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self._own = OwnLog(bootstrap, crunch_id, data_dir)
        self._partitions = [TopicPartition(topic_name(crunch_id, topic), PARTITION) for topic in TOPICS]
        self._ready = ReadyClients(bootstrap, self._partitions, TAIL_WAIT_MS)
        self._checking = asyncio.Lock()
        self._prober: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()

    async def _shared_prober(self) -> AIOKafkaConsumer:
        async with self._starting:
            if self._prober is None:
                prober = make_reader(self._bootstrap)
                try:
                    await prober.start()
                    prober.assign(self._partitions)
                except BaseException:
                    await stop_reader(prober)
                    raise
                self._prober = prober
            return self._prober

    async def connect(self) -> None:
        """Wait for the cluster, and check that the crunch's topics are ours and complete. Later calls do nothing.

        Nothing is read or written before this check. Raises WorldError when the cluster does not answer in
        CONNECT_SECONDS_MAX, WrongLogError naming the topic.
        """
        async with self._checking:
            if not self._own.birth_id:
                await self._own.check(CONNECT_SECONDS_MAX)

    async def watch(self) -> None:
        """Watch the topics until cancelled. Raises WrongLogError when they are no longer what they were."""
        await self.connect()
        await self._own.watch()

    async def keep_ready(self) -> None:
        """For a standby: open what a takeover will use, and keep it open. Call it now and then while waiting."""
        await self.connect()
        await self._ready.fill()  # first, because it continues when a client gets no answer
        await (await self._shared_prober()).end_offsets(self._partitions)

    async def end_ready(self) -> None:
        """Stop what is kept ready and was not used."""
        await self._ready.close()

    async def close(self) -> None:
        """Stop the consumer that the readers share, and what is kept ready."""
        await self.end_ready()
        if self._prober is not None:
            await stop_reader(self._prober)
            self._prober = None

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> KafkaReader:
        """See `LogIO`."""
        await self.connect()
        name = topic_name(self._crunch_id, topic)
        ready = None if patient else self._ready.take_reader()
        consumer = ready or make_reader(self._bootstrap, wait_ms=TAIL_WAIT_MS, patient=patient)
        partition = TopicPartition(name, PARTITION)
        try:
            if ready is None:
                await consumer.start()
            begins, ends = await offsets_of(consumer, [partition])
            begin, end = begins[partition], ends[partition]
            if not begin <= offset <= end:
                raise TruncatedTopicError(
                    f"topic {name} holds offsets {begin} to {end}, but the node needs {offset}: the topic was cut or "
                    "created again"
                )
            consumer.seek(partition, offset)
            prober = await self._shared_prober()
        except BaseException:
            await stop_reader(consumer)
            raise
        return KafkaReader(consumer, prober, name, offset, end)

    async def writer(self) -> KafkaWriter:
        """See `LogIO`."""
        await self.connect()
        if (ready := self._ready.take_writer()) is not None:
            return KafkaWriter(ready, self._crunch_id)
        producer = make_producer(self._bootstrap)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return KafkaWriter(producer, self._crunch_id)


async def records_until(reader: Reader, end: int) -> AsyncIterator[tuple[int, bytes]]:
    """Every record, as (offset, value), from the reader's position up to `end` (exclusive)."""
    while batch := await reader.read(end):
        for offset_and_value in batch:
            yield offset_and_value


async def decisions_until(
    reader: Reader, counter: Counter | TailCounter | PlainCounter, end: int
) -> AsyncIterator[Decision]:
    """Every counted decision from the reader's position up to `end` (exclusive). Raises UnknownEventError."""
    async for offset, record in records_until(reader, end):
        decision = counter.read(offset, record)
        if decision is not None:
            yield decision


async def reader_near_end(io: LogIO, topic: str, records_max: int) -> Reader:
    """A reader that begins at most this many records before the topic's end."""
    probe = await io.reader(topic, 0)
    await probe.close()
    return await io.reader(topic, max(0, probe.first_end - records_max))
