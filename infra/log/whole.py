"""Whole topics of a log in memory, as they were when the reading began: for what runs the stages over them again.

Reads by offset from 0, never commits; writes nothing. A record takes its bytes and some 40 more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.errors import TruncatedTopicError
from coordinator.streams.topology import topic_name


async def read_whole(
    bootstrap: str,
    crunch_id: str,
    topics: Sequence[str],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> MemoryLog:
    """These topics up to their ends. `progress` is told (records read, records in all).

    Raises WorldError, OperatorError (no such topic), TruncatedTopicError.
    """
    log = MemoryLog()
    done = 0
    async with reading(bootstrap) as consumer:
        ranges = await offsets(consumer, crunch_id)
        total = sum(ranges[topic][1] for topic in topics)
        for topic in topics:
            start, end = ranges[topic]
            if start:
                raise TruncatedTopicError(
                    f"topic {topic_name(crunch_id, topic)} begins at offset {start}, not at 0"
                )
            records = log[topic]
            async for offset, record in read_range(consumer, topic_name(crunch_id, topic), start, end):
                if offset != len(records):
                    raise TruncatedTopicError(
                        f"topic {topic_name(crunch_id, topic)} has no record at offset {len(records)}"
                    )
                records.append(record)
                done += 1
                if done % 1000 == 0:
                    progress(done, total)
    progress(done, total)
    return log
