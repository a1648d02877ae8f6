"""The topics for `verify-e2e`: the rounds of one checkpoint, and each topic again as a stage reads it.

Reads Kafka as anybody may; writes nothing. Records are taken one after the other; what is held is one period's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.audit.redo import Topics
from coordinator.streams.events import CheckpointData
from coordinator.streams.log.birth import read_birth
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.topology import topic_name

OnRead = Callable[[str, int, int], None]
"""(topic, records read, records in all)"""
TELL_EVERY = 5_000


def found_in(chain: Chain, checkpoint_id: str) -> CheckpointData:
    """The checkpoint. Raises ChainBrokenError when the topics do not have it."""
    checkpoint = chain.checkpoints.get(checkpoint_id)
    if checkpoint is None:
        raise ChainBrokenError(
            "checkpoint",
            f"the topics have no checkpoint {checkpoint_id} (`coordinator checkpoint list` names them)",
        )
    return checkpoint


async def read_chain(bootstrap: str, crunch_id: str, checkpoint_id: str, on_read: OnRead) -> Chain:
    """All topics as they are now, with the rounds of one checkpoint's period.

    Raises WorldError, OperatorError, LogError, ChainBrokenError when the topics do not have the checkpoint.
    """
    async with reading(bootstrap) as consumer:
        ends = await offsets(consumer, crunch_id)

        async def take_in(chain: Chain, topic: str) -> None:
            counter = Counter(topic)
            async for offset, record in read_range(consumer, topic_name(crunch_id, topic), *ends[topic]):
                if offset == 0 and (birth := read_birth(record)) is not None:
                    chain.copy_of = birth.data.copy_of
                if offset % TELL_EVERY == 0:
                    on_read(topic, offset, ends[topic][1])
                decision = counter.read(offset, record)
                if decision is not None:
                    chain.take_in(decision)

        ends_only = Chain()
        await take_in(ends_only, "checkpoints")
        checkpoint = found_in(ends_only, checkpoint_id)
        chain = Chain(period=(checkpoint.period_start, checkpoint.period_end))
        for topic in TOPICS_READ:
            await take_in(chain, topic)
    chain.settle()
    return chain


def topics_of(bootstrap: str, crunch_id: str, on_read: OnRead) -> Topics:
    """Each topic's counted decisions from a position to its end as of the asking, each on a connection of its own."""

    async def decisions(topic: str, start: Need) -> AsyncIterator[Decision]:
        async with reading(bootstrap) as consumer:
            begin, end = (await offsets(consumer, crunch_id))[topic]
            counter = counter_for(topic, start)
            first = max(begin, start.offset)
            async for offset, record in read_range(consumer, topic_name(crunch_id, topic), first, end):
                if offset % TELL_EVERY == 0:
                    on_read(topic, offset, end)
                if (decision := counter.read(offset, record)) is not None:
                    yield decision

    return decisions
