"""Whole topics of a log, from their first record: one after another, or all in memory to run the stages over them.

Reads by offset, never commits; writes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from aiokafka import AIOKafkaConsumer

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.errors import TruncatedTopicError
from coordinator.streams.topology import topic_name


async def whole_topic(
    consumer: AIOKafkaConsumer, crunch_id: str, topic: str, span: tuple[int, int]
) -> AsyncIterator[tuple[int, bytes]]:
    """(offset, record) of a topic from offset 0 to the end of `span`, its (begin, end) on the broker.

    Raises TruncatedTopicError if a record is missing, WorldError.
    """
    begin, end = span
    name = topic_name(crunch_id, topic)
    if begin:
        raise TruncatedTopicError(f"topic {name} begins at offset {begin}, not at 0")
    expected = 0
    async for offset, record in read_range(consumer, name, begin, end):
        if offset != expected:
            raise TruncatedTopicError(f"topic {name} has no record at offset {expected}")
        expected += 1
        yield offset, record


async def read_whole(
    bootstrap: str,
    crunch_id: str,
    topics: Sequence[str],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> MemoryLog:
    """These topics up to their ends, in memory: a record takes its bytes and some 40 more.

    `progress` is called with (records read, records in all). Raises WorldError, OperatorError (no such topic),
    TruncatedTopicError.
    """
    log = MemoryLog()
    done = 0
    async with reading(bootstrap) as consumer:
        ranges = await offsets(consumer, crunch_id)
        total = sum(ranges[topic][1] for topic in topics)
        for topic in topics:
            async for _, record in whole_topic(consumer, crunch_id, topic, ranges[topic]):
                log.append(topic, record)
                done += 1
                if done % 1000 == 0:
                    progress(done, total)
    progress(done, total)
    return log
