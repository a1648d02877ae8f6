"""The whole check of a checkpoint over a log in memory, as `verify-e2e` runs it over the topics of a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.memory_log import MemoryLog

from coordinator.streams.audit.checkpoint import STEPS, check_log
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.events import CheckpointData
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.plain_topics import counter_for


def topics_of(log: MemoryLog) -> Callable[[str, Need], AsyncIterator[Decision]]:
    """Yields the decisions of a topic from a position on, in the check's format."""

    async def decisions(topic: str, start: Need) -> AsyncIterator[Decision]:
        counter = counter_for(topic, start)
        for offset, record in enumerate(log[topic][start.offset :], start=start.offset):
            if (decision := counter.read(offset, record)) is not None:
                yield decision

    return decisions


def chain_of(log: MemoryLog, checkpoint: CheckpointData) -> Chain:
    """The facts of the checkpoint's period, which the check reads first."""
    period = (checkpoint.period_start, checkpoint.period_end)
    return Chain({topic: log.decisions(topic) for topic in TOPICS_READ}, period)


def steps_of(
    log: MemoryLog, chain: Chain, checkpoint: CheckpointData, contracts: Any, crunch_id: str
) -> dict[str, str]:
    """Step -> what was checked, for all steps in order. Raises ChainBrokenError."""

    async def walk() -> dict[str, str]:
        steps = check_log(topics_of(log), chain, checkpoint, contracts, crunch_id)
        return {step: text async for step, text in steps}

    texts = asyncio.run(walk())
    assert list(texts) == list(STEPS)
    return texts


def fault_of(
    log: MemoryLog, chain: Chain, checkpoint: CheckpointData, contracts: Any, crunch_id: str
) -> ChainBrokenError | None:
    """The first error that the check finds, or None."""
    try:
        steps_of(log, chain, checkpoint, contracts, crunch_id)
    except ChainBrokenError as error:
        return error
    return None
