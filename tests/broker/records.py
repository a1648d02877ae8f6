"""The name of a test's crunch, and every record of one of its topics, as it is on the broker."""

from __future__ import annotations

import re

from aiokafka import TopicPartition

from coordinator.infra.kafka.clients import make_reader, read_range
from coordinator.streams.topology import topic_name

PROJECTIONS = {
    "leaderboard",
    "models",
    "predictions",
    "feeds",
    "snapshots",
    "checkpoints",
    "dead_letters",
    "checks",
    "evidence",
    "rounds",
}
"""The topics that a report worker folds."""


def crunch_name(text: str) -> str:
    """The words of `text`, joined as in a crunch id."""
    return "-".join(re.findall("[a-z0-9]+", text.lower().removeprefix("test_")))[:95].strip("-")


async def records_of(bootstrap: str, crunch_id: str, topic: str) -> list[bytes]:
    """All records in order, up to the current end."""
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
