"""How we speak to Kafka: the options of every producer and reader, in one place, and reading a range of a
topic.

Reads any topic by offset; never commits anything. Sizes go with `broker_settings.MESSAGE_BYTES_MAX`.
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

from coordinator.infra.kafka import guard as kafka_guard  # noqa: F401 - every connection is asked whose it is
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
    """lz4 where its codec is installed (cramjam), else gzip, which Python always has."""
    return "lz4" if has_lz4() else "gzip"


def producer_options(bootstrap: str) -> dict[str, Any]:
    """Options of an AIOKafkaProducer: acknowledged by all in sync, idempotent, in order, sent at once.

    With idempotence a retry inside the client neither repeats nor reorders; a send that fails after all is
    final: close the producer and make another (design section 5: claim anew).
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
    """Options of a group-less AIOKafkaConsumer: positions are its owner's, nothing is committed.

    An offset that the topic no longer has is an error, never a silent jump to one of its ends.
    """
    return {
        **connection_options(bootstrap),
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "fetch_max_wait_ms": 100,
        "fetch_max_bytes": MESSAGE_BYTES_MAX,
        # Compressed bytes held for each topic; a larger record comes alone (the broker gives at least one batch).
        "max_partition_fetch_bytes": FETCH_BYTES_MAX,
        "request_timeout_ms": 20_000,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": 60_000,
    }


def make_producer(bootstrap: str) -> AIOKafkaProducer:
    """A producer with our options, not started. Call it inside a running event loop."""
    return AIOKafkaProducer(**producer_options(bootstrap))


def make_reader(bootstrap: str, *, wait_ms: int = 100, patient: bool = False) -> AIOKafkaConsumer:
    """A group-less consumer with our options, not started. Call it inside a running event loop.

    `wait_ms` is how long the broker holds an answer back while there is nothing new: long for a tail (an idle
    one then costs little), short where the same consumer is soon asked about another topic. A `patient` one has it
    held back for so long while there is little new, too.
    """
    options = reader_options(bootstrap) | {"fetch_max_wait_ms": wait_ms}
    if patient:
        options["fetch_min_bytes"] = FETCH_BYTES_MAX
    return AIOKafkaConsumer(**options)


async def stop_reader(consumer: AIOKafkaConsumer) -> None:
    """End a reader. One that has only just started raises its own inner task's cancellation (aiokafka 0.14):
    that is swallowed here, a cancellation meant for the caller is not.

    One that does not end in STOP_SECONDS_MAX is left behind: its inner task may have missed its cancellation, and the
    whole process would wait for it. The end of the event loop cancels that task once more.
    """
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await consumer.stop()
    except TimeoutError:
        _log.warning("reader_left_behind", seconds=STOP_SECONDS_MAX)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


async def fetched(
    consumer: AIOKafkaConsumer, timeout_ms: int, max_records: int | None = None
) -> dict[TopicPartition, list[Any]]:
    """`getmany`, with the errors that name the topic. Raises TruncatedTopicError, CorruptTopicError."""
    try:
        return await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)  # type: ignore[no-any-return]
    except OffsetOutOfRangeError as error:
        raise TruncatedTopicError(f"a topic was cut while it was read: {error}") from error
    except RecordTooLargeError as error:  # none of ours is: a damaged batch says that it is longer than it is
        _, at, offset, *_ = error.args
        raise CorruptTopicError(at.topic, offset, "its length is wrong") from error
    except CorruptRecordException as error:
        # aiokafka names the partition in its text alone; a reader of one topic need not look there.
        assigned = sorted(consumer.assignment())
        at = next((partition for partition in assigned if repr(partition) in str(error)), assigned[0])
        offset = await _first_corrupt(consumer, at)
        raise CorruptTopicError(at.topic, offset, "its checksum is wrong") from error


async def _first_corrupt(consumer: AIOKafkaConsumer, at: TopicPartition) -> int:
    """Where the record begins that cannot be read: aiokafka throws away what it had read before it, so one by one."""
    consumer.pause(*(consumer.assignment() - {at}))
    try:
        async with asyncio.timeout(CORRUPT_SECONDS_MAX):
            while await consumer.getmany(timeout_ms=READ_WAIT_MS, max_records=1):
                pass
    except (CorruptRecordException, RecordTooLargeError, TimeoutError):
        pass  # here it is; or nearly, which is better than nothing
    return int(await consumer.position(at))


async def stand_at(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> None:
    """Read this partition alone, from `offset` on."""
    consumer.assign([partition])
    # A question to the broker: meanwhile the consumer throws away what it still holds of other partitions, errors too.
    await consumer.end_offsets([partition])
    consumer.seek(partition, offset)


async def offsets_of(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Each partition's first offset, and the one after its last record. The consumer is left assigned to them all.

    The assignment names all topics to aiokafka at once. A question about topics that it does not know fails for the
    first of them, which it then learns, and is asked again 50 ms later: half a second for a crunch's nine.
    """
    if consumer.assignment() != set(partitions):
        consumer.assign(list(partitions))
    return await consumer.beginning_offsets(list(partitions)), await consumer.end_offsets(list(partitions))


async def first_record(consumer: AIOKafkaConsumer, topic: str) -> bytes:
    """The value at offset 0 of a topic that has one, whatever has become of the records behind it.

    The consumer is left assigned to `topic`. Raises TruncatedTopicError, CorruptTopicError, WorldError.
    """
    partition = TopicPartition(topic, PARTITION)
    await stand_at(consumer, partition, 0)
    for _ in range(int(READ_STALL_SECONDS_MAX * 1000 / READ_WAIT_MS)):
        # One: aiokafka would throw it away too for a damaged one in the same answer.
        for record in (await fetched(consumer, READ_WAIT_MS, 1)).get(partition, []):
            return record.value or b""
    raise WorldError(f"topic {topic} gave nothing at offset 0 for {READ_STALL_SECONDS_MAX:g} s")


async def read_range(
    consumer: AIOKafkaConsumer, topic: str, start: int, end: int
) -> AsyncIterator[tuple[int, bytes]]:
    """`read_records`, as (offset, value). A record without a value gives b""."""
    async for record in read_records(consumer, topic, start, end):
        yield record.offset, record.value or b""


async def read_records(
    consumer: AIOKafkaConsumer, topic: str, start: int, end: int
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """The records of `topic` at offsets start <= offset < end, in order.

    `topic` is the full name. The consumer is this call's alone while it runs: it is assigned to `topic` and
    left so, at the position after the last record yielded.

    Raises TruncatedTopicError when the topic no longer reaches from `start` to `end`, WorldError when the
    broker gives nothing for 30 s.
    """
    if end <= start:
        return
    partition = TopicPartition(topic, PARTITION)
    # Other partitions' records would come out of the same fetches; and `seek_to_beginning(tp)` with
    # `getmany(tp)` was seen to return nothing for ever (aiokafka 0.14), so: assign one, seek to a number,
    # getmany of all.
    if consumer.assignment() != {partition}:
        consumer.assign([partition])
    begins = (await consumer.beginning_offsets([partition]))[partition]
    ends = (await consumer.end_offsets([partition]))[partition]
    if start < begins or end > ends:
        raise TruncatedTopicError(
            f"topic {topic} holds offsets {begins} to {ends}, but {start} to {end} are needed: "
            "it was cut or made anew"
        )
    consumer.seek(partition, start)
    position, waited_ms = start, 0
    while position < end:
        batches = await fetched(consumer, READ_WAIT_MS)
        records = batches.get(partition, [])
        if not records:
            # Offsets need not be dense: the position moves over what is not a record.
            position = max(position, await consumer.position(partition))
            waited_ms += READ_WAIT_MS
            if waited_ms > READ_STALL_SECONDS_MAX * 1000:
                raise WorldError(
                    f"topic {topic} gave nothing at offset {position} for {READ_STALL_SECONDS_MAX:g} s"
                )
            continue
        waited_ms = 0
        for record in records:
            if record.offset >= end:
                consumer.seek(partition, end)
                return
            yield record
        position = records[-1].offset + 1
