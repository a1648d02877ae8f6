"""Our Kafka clients: the options of every producer and reader in one place, and reading a range of a topic.

Reads topics by offset, and commits nothing. The sizes follow `broker_settings.MESSAGE_BYTES_MAX`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from functools import cache
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.codec import has_lz4
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError, RecordTooLargeError
from aiokafka.structs import ConsumerRecord

from coordinator.infra.kafka import guard as kafka_guard  # noqa: F401 - checks each connection's cluster
from coordinator.infra.kafka.broker_settings import MESSAGE_BYTES_MAX
from coordinator.infra.kafka.security import connection_options
from coordinator.streams.log.errors import CorruptTopicError, TruncatedTopicError, WorldError

FETCH_BYTES_MAX = 1024 * 1024
PARTITION = 0  # every topic has one
READ_WAIT_MS = 200
READ_STALL_SECONDS_MAX = 30.0
CORRUPT_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 10.0

_log = structlog.get_logger()


@cache
def compression() -> str:
    """lz4 if its codec (cramjam) is installed, otherwise gzip, which Python always has."""
    return "lz4" if has_lz4() else "gzip"


def producer_options(bootstrap: str) -> dict[str, Any]:
    """Options of an AIOKafkaProducer: acknowledged by all in-sync copies, idempotent, in order, sent at once.

    Because the producer is idempotent, a retry inside the client neither repeats nor reorders records. A send that
    still fails is final: close the producer, make another, and claim the topic again.
    """
    return {
        **connection_options(bootstrap),
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": compression(),
        "linger_ms": 0,
        "max_batch_size": 256 * 1024,
        "max_request_size": MESSAGE_BYTES_MAX,
        "request_timeout_ms": 20_000,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": 60_000,
    }


def reader_options(bootstrap: str) -> dict[str, Any]:
    """Options of an AIOKafkaConsumer without a group: its owner keeps the positions, and nothing is committed.

    A read at an offset that the topic no longer has is an error; the consumer never jumps to one of the topic's ends.
    """
    return {
        **connection_options(bootstrap),
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "fetch_max_wait_ms": 100,
        "fetch_max_bytes": MESSAGE_BYTES_MAX,
        # Compressed bytes per topic and fetch. A larger record is fetched alone: the broker sends at least one batch.
        "max_partition_fetch_bytes": FETCH_BYTES_MAX,
        "request_timeout_ms": 20_000,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": 60_000,
    }


def make_producer(bootstrap: str) -> AIOKafkaProducer:
    """A producer with our options, not started. Call it inside a running event loop."""
    return AIOKafkaProducer(**producer_options(bootstrap))


def make_reader(
    bootstrap: str, *, wait_ms: int = 100, patient: bool = False, fetch_bytes: int = FETCH_BYTES_MAX
) -> AIOKafkaConsumer:
    """A consumer without a group, with our options, not started. Call it inside a running event loop.

    `wait_ms` is how long the broker delays its answer while there is nothing new: long for a consumer that follows a
    topic's end (it then costs little while idle), short if the consumer will soon read another topic. With `patient`
    the broker also delays an answer while there is less than FETCH_BYTES_MAX. `fetch_bytes` is about how much one fetch
    brings: little for who reads single records.
    """
    options = reader_options(bootstrap) | {
        "fetch_max_wait_ms": wait_ms,
        "max_partition_fetch_bytes": fetch_bytes,
    }
    if patient:
        options["fetch_min_bytes"] = FETCH_BYTES_MAX
    return AIOKafkaConsumer(**options)


async def stop_reader(consumer: AIOKafkaConsumer) -> None:
    """Stop a reader.

    A reader that has only just started raises the cancellation of its own inner task (aiokafka 0.14). That one is
    suppressed here; a cancellation of the caller is not.

    A reader that does not stop in STOP_SECONDS_MAX is abandoned: its inner task may have missed its cancellation, and
    the whole process would wait for it. The end of the event loop cancels that task again.

    aiokafka's `stop` waits for its inner tasks and suppresses every cancellation meanwhile, the caller's too. It is
    raised here again. Otherwise a watch that is ended at that moment would never stop, nor would its stage.
    """
    task = asyncio.current_task()
    cancelled_before = task.cancelling() if task is not None else 0
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await consumer.stop()
    except TimeoutError:
        _log.warning("reader_left_behind", seconds=STOP_SECONDS_MAX)
    except asyncio.CancelledError:
        if task is not None and task.cancelling():
            raise
    if task is not None and task.cancelling() > cancelled_before:
        raise asyncio.CancelledError


async def fetched(
    consumer: AIOKafkaConsumer, timeout_ms: int, max_records: int | None = None
) -> dict[TopicPartition, list[Any]]:
    """`getmany`, with errors that name the topic. Raises TruncatedTopicError, CorruptTopicError."""
    try:
        return await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)  # type: ignore[no-any-return]
    except OffsetOutOfRangeError as error:
        raise TruncatedTopicError(f"a topic was cut while it was read: {error}") from error
    except (
        RecordTooLargeError
    ) as error:  # the node writes no record that is too large: a damaged batch states a wrong length
        _, partition, offset, *_ = error.args
        raise CorruptTopicError(partition.topic, offset, "its length is wrong") from error
    except CorruptRecordException as error:
        # aiokafka names the partition only in the error's text. With one assigned partition the text does not matter.
        assigned = sorted(consumer.assignment())
        partition = next((each for each in assigned if repr(each) in str(error)), assigned[0])
        offset = await _first_corrupt(consumer, partition)
        raise CorruptTopicError(partition.topic, offset, "its checksum is wrong") from error


async def _first_corrupt(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """The offset of the unreadable record. aiokafka drops the good records it fetched with it: read one at a time."""
    consumer.pause(*(consumer.assignment() - {partition}))
    try:
        async with asyncio.timeout(CORRUPT_SECONDS_MAX):
            while await consumer.getmany(timeout_ms=READ_WAIT_MS, max_records=1):
                pass
    except (CorruptRecordException, RecordTooLargeError, TimeoutError):
        pass  # the position is at the damaged record, after a timeout a little before it
    return int(await consumer.position(partition))


async def stand_at(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> None:
    """Let the consumer read this partition alone, from `offset` on."""
    consumer.assign([partition])
    # While this waits for the broker, the consumer drops what it still holds of other partitions, errors included.
    await consumer.end_offsets([partition])
    consumer.seek(partition, offset)


async def offsets_of(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Each partition's first offset and end offset. Afterwards the consumer is assigned to all of them.

    The assignment makes all topics known to aiokafka at once. A request about unknown topics fails at the first of
    them, which aiokafka then learns, and is repeated 50 ms later: half a second for the nine topics of a crunch.
    """
    if consumer.assignment() != set(partitions):
        consumer.assign(list(partitions))
    begins, ends = await asyncio.gather(
        consumer.beginning_offsets(list(partitions)), consumer.end_offsets(list(partitions))
    )
    return begins, ends


async def first_record(consumer: AIOKafkaConsumer, topic: str) -> bytes:
    """The value of the record at offset 0, even if later records are damaged.

    Afterwards the consumer is assigned to `topic`. Raises TruncatedTopicError, CorruptTopicError, WorldError.
    """
    partition = TopicPartition(topic, PARTITION)
    await stand_at(consumer, partition, 0)
    for _ in range(int(READ_STALL_SECONDS_MAX * 1000 / READ_WAIT_MS)):
        # A single record: aiokafka would drop it if a later record in the same answer is damaged.
        for record in (await fetched(consumer, READ_WAIT_MS, 1)).get(partition, []):
            return record.value or b""
    raise WorldError(f"topic {topic} delivered no record at offset 0 for {READ_STALL_SECONDS_MAX:g} s")


async def read_range(
    consumer: AIOKafkaConsumer, topic: str, start: int, end: int
) -> AsyncIterator[tuple[int, bytes]]:
    """`read_records` as (offset, value). The value of a record without one is b""."""
    async for record in read_records(consumer, topic, start, end):
        yield record.offset, record.value or b""


async def read_records(
    consumer: AIOKafkaConsumer, topic: str, start: int, end: int
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """The records of `topic` at offsets start <= offset < end, in order.

    `topic` is the full name. Nobody else may use the consumer while this runs. Afterwards it is assigned to `topic`, at
    the position after the last record yielded.

    Raises TruncatedTopicError when the topic no longer reaches from `start` to `end`, WorldError when the broker sends
    nothing for READ_STALL_SECONDS_MAX.
    """
    if end <= start:
        return
    partition = TopicPartition(topic, PARTITION)
    # One partition is assigned, because a fetch also returns the records of others. The position is set by number:
    # `seek_to_beginning(partition)` followed by `getmany(partition)` never returned anything (aiokafka 0.14).
    if consumer.assignment() != {partition}:
        consumer.assign([partition])
    begins = (await consumer.beginning_offsets([partition]))[partition]
    ends = (await consumer.end_offsets([partition]))[partition]
    if start < begins or end > ends:
        raise TruncatedTopicError(
            f"topic {topic} holds offsets {begins} to {ends}, but the node needs {start} to {end}: "
            "the topic was cut or created again"
        )
    consumer.seek(partition, start)
    position, waited_ms = start, 0
    while position < end:
        batches = await fetched(consumer, READ_WAIT_MS)
        records = batches.get(partition, [])
        if not records:
            # Offsets need not be dense: the position moves over offsets that hold no record.
            position = max(position, await consumer.position(partition))
            waited_ms += READ_WAIT_MS
            if waited_ms > READ_STALL_SECONDS_MAX * 1000:
                raise WorldError(
                    f"topic {topic} delivered no record at offset {position} for {READ_STALL_SECONDS_MAX:g} s"
                )
            continue
        waited_ms = 0
        for record in records:
            if record.offset >= end:
                consumer.seek(partition, end)
                return
            yield record
        position = records[-1].offset + 1
