"""Reads the dead letters from their topic, each once, in order."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.events import DeadLettered
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.topology import topic_name

TOPIC = "dead-letters"


async def read_letters(bootstrap: str, crunch_id: str) -> list[dict[str, Any]]:
    """`{id, at, origin, position, reason, sha256, head}` of each letter, oldest first; a letter sent twice is one.

    Raises WorldError, OperatorError (no such topic).
    """
    letters: dict[str, dict[str, Any]] = {}
    counter = PlainCounter(TOPIC)
    async with reading(bootstrap) as consumer:
        start, end = (await offsets(consumer, crunch_id))[TOPIC]
        async for offset, record in read_range(consumer, topic_name(crunch_id, TOPIC), start, end):
            decision = counter.read(offset, record)
            for event in [] if decision is None else decision.events:
                if isinstance(event, DeadLettered):
                    letters.setdefault(
                        event.id, {"id": event.id, "at": event.at} | msgspec.to_builtins(event.data)
                    )
    return list(letters.values())
