"""Clients that a standby keeps ready: they are connected, and know the leader of each topic.

A client that is new costs nine round trips before its first record, and a takeover needs one after the other. Far from
the brokers that was a third of the time that a takeover may take. So a process that waits for a stage opens its clients
while it waits, and uses them up when it claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from coordinator.infra.kafka.clients import make_producer, make_reader, stop_reader
from coordinator.infra.together import together
from coordinator.streams.log.errors import text_of

READERS, WRITERS = 8, 2
"""What the feed worker uses until it has resumed, which needs most. Each client holds a connection to each broker that
leads a topic."""
ASK_SECONDS_MAX = 20.0

Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer)

log = structlog.get_logger()


class ReadyClients:
    """Readers and writers for the topics of `partitions`."""

    def __init__(self, bootstrap: str, partitions: Sequence[TopicPartition], wait_ms: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = list(partitions)
        self._wait_ms = wait_ms
        self._readers: list[AIOKafkaConsumer] = []
        self._writers: list[AIOKafkaProducer] = []

    async def fill(self) -> None:
        """Open what is missing, and use what is there: an idle connection would be closed, and a leader may have moved.

        A client that does not answer is dropped, and replaced at the next call.
        """
        new_readers = [
            make_reader(self._bootstrap, wait_ms=self._wait_ms) for _ in range(READERS - len(self._readers))
        ]
        new_writers = [make_producer(self._bootstrap) for _ in range(WRITERS - len(self._writers))]
        await together(
            *(self._use(self._readers, reader, self._ask_ends) for reader in self._readers),
            *(self._use(self._writers, writer, self._reach_leaders) for writer in self._writers),
            *(self._use(self._readers, reader, self._ask_ends, is_new=True) for reader in new_readers),
            *(self._use(self._writers, writer, self._reach_leaders, is_new=True) for writer in new_writers),
        )

    def take_reader(self) -> AIOKafkaConsumer | None:
        """A started reader; None if there is none left."""
        return self._readers.pop() if self._readers else None

    def take_writer(self) -> AIOKafkaProducer | None:
        """A started producer; None if there is none left."""
        return self._writers.pop() if self._writers else None

    async def close(self) -> None:
        """Stop all that were not taken."""
        while (reader := self.take_reader()) is not None:
            await stop_reader(reader)
        while (writer := self.take_writer()) is not None:
            await writer.stop()

    async def _use(
        self,
        ready: list[Client],
        client: Client,
        ask: Callable[[Client], Awaitable[None]],
        *,
        is_new: bool = False,
    ) -> None:
        if not is_new and client not in ready:
            return  # taken just now
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                if is_new:
                    await client.start()
                await ask(client)
        except BaseException as error:
            if is_new or client in ready:  # else it was taken meanwhile: whoever has it meets the same error
                ready[:] = [other for other in ready if other is not client]
                await _stop(client)
            if not isinstance(error, (KafkaError, OSError)):  # TimeoutError is an OSError
                raise
            log.info("client_not_ready", reason=text_of(error))
        else:
            if is_new:
                ready.append(client)

    async def _ask_ends(self, reader: AIOKafkaConsumer) -> None:
        if not reader.assignment():
            reader.assign(self._partitions)  # all topics become known at once
        await reader.end_offsets(self._partitions)

    async def _reach_leaders(self, writer: AIOKafkaProducer) -> None:
        for partition in self._partitions:
            await writer.partitions_for(partition.topic)
        client = writer.client
        if not await client.force_metadata_update():  # what is known already is not asked for above
            raise KafkaConnectionError("no broker tells who leads the topics")
        leaders = {client.cluster.leader_for_partition(partition) for partition in self._partitions}
        # An answer of each: a connection whose other end is gone looks open until it is used.
        await together(
            *(client.send(leader, MetadataRequest([])) for leader in leaders if leader is not None)
        )


async def _stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    if isinstance(client, AIOKafkaConsumer):
        await stop_reader(client)
    else:
        await client.stop()
