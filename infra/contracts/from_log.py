"""Reads the contracts in the log: the commands that applied them, with their archives, and the terms that hold."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.followed_topic import FollowedTopic
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.events import ApplyContract, CrunchConfigured
from coordinator.streams.log.envelope import may_hold
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.topology import topic_name

FIND_SECONDS_MAX = 60.0


async def read_applied(bootstrap: str, crunch_id: str) -> list[tuple[int, ApplyContract]]:
    """(offset, command) of every command that applies a contract, oldest first, refused commands included.

    Raises WorldError, OperatorError (no such topic).
    """
    applied: list[tuple[int, ApplyContract]] = []
    counter = PlainCounter("commands")
    async with reading(bootstrap) as consumer:
        start, end = (await offsets(consumer, crunch_id))["commands"]
        async for offset, record in read_range(consumer, topic_name(crunch_id, "commands"), start, end):
            decision = counter.read(offset, record) if may_hold(record, "ApplyContract") else None
            applied += [
                (offset, event)
                for event in ([] if decision is None else decision.events)
                if isinstance(event, ApplyContract)
            ]
    return applied


async def read_terms(bootstrap: str, crunch_id: str) -> list[CrunchConfigured]:
    """The terms that have reached the topic `checkpoints`, by `effective_from`. Raises WorldError, OperatorError."""
    terms_of_id: dict[str, CrunchConfigured] = {}
    async with FollowedTopic(bootstrap, crunch_id, "checkpoints") as checkpoints:
        async for decision in checkpoints.decisions():
            if decision.may_hold("CrunchConfigured"):
                terms_of_id |= {
                    event.id: event for event in decision.events if isinstance(event, CrunchConfigured)
                }
    return sorted(terms_of_id.values(), key=lambda terms: terms.data.effective_from)


def find_archive(bootstrap: str, crunch_id: str, contract_hash: str) -> bytes | None:
    """The archive of a hash from the log; None if no command applied it.

    Blocks, also the event loop of the caller: a stage cannot decide anything more without the contract it needs.
    """

    async def find() -> bytes | None:
        async with asyncio.timeout(FIND_SECONDS_MAX):
            for _, command in await read_applied(bootstrap, crunch_id):
                if command.data.contract_hash == contract_hash:
                    return bytes(command.data.archive)
        return None

    with ThreadPoolExecutor(1) as thread:  # a loop of its own: the caller's may be running
        return thread.submit(asyncio.run, find()).result()
