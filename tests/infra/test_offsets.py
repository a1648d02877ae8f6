"""Offsets of many topics: requested from a consumer that knows them all, because one that does not requests metadata
for each.
"""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from coordinator.infra.kafka.clients import offsets_of

CRUNCH = [TopicPartition(f"c.{name}", 0) for name in ("feeds", "inputs", "scores")]


class Consumer:
    """Like aiokafka's: a request about topics that are not assigned costs a round trip of 50 ms for each of them."""

    def __init__(self, assigned=()):
        self.assigned, self.assignments, self.rounds_lost = set(assigned), 0, 0

    def assignment(self):
        return self.assigned

    def assign(self, partitions):
        self.assigned, self.assignments = set(partitions), self.assignments + 1

    async def beginning_offsets(self, partitions):
        self.rounds_lost += len(set(partitions) - self.assigned)
        return dict.fromkeys(partitions, 2)

    async def end_offsets(self, partitions):
        self.rounds_lost += len(set(partitions) - self.assigned)
        return dict.fromkeys(partitions, 7)


@pytest.mark.parametrize("assigned", [(), CRUNCH[:1], CRUNCH])
async def test_every_topic_is_known_before_its_offset_is_requested(assigned):
    consumer = Consumer(assigned)
    begins, ends = await offsets_of(consumer, CRUNCH)
    assert begins == dict.fromkeys(CRUNCH, 2)
    assert ends == dict.fromkeys(CRUNCH, 7)
    assert consumer.rounds_lost == 0


async def test_a_consumer_that_knows_them_is_unchanged():
    """Otherwise a check every three seconds would fetch the metadata again each time."""
    consumer = Consumer(CRUNCH)
    await offsets_of(consumer, CRUNCH)
    assert consumer.assignments == 0
