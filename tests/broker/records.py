"""Every record of one topic, as it stands on the broker."""

from __future__ import annotations

from aiokafka import TopicPartition

from coordinator.infra.kafka import make_reader, read_range
from coordinator.streams.topology import topic_name


async def records_of(bootstrap: str, crunch_id: str, topic: str) -> list[bytes]:
    """In order, up to the end as of now."""
    reader = make_reader(bootstrap)
    await reader.start()
    try:
        name = topic_name(crunch_id, topic)
        partition = TopicPartition(name, 0)
        reader.assign([partition])
        end = (await reader.end_offsets([partition]))[partition]
        return [record async for _, record in read_range(reader, name, 0, end)]
    finally:
        await reader.stop()
