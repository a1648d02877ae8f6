"""Appending a command to `commands`: the one topic that the API and the operator's tools write."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from coordinator.infra.kafka import make_producer
from coordinator.infra.kafka_probe import why_silent
from coordinator.streams.envelope import encode_event
from coordinator.streams.errors import WorldError
from coordinator.streams.events import Event
from coordinator.streams.topology import topic_name

SEND_SECONDS_MAX = 10.0


class KafkaCommandPort:
    """Appends commands to the topic, each acknowledged before its offset is given."""

    def __init__(self, bootstrap: str, crunch_id: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic_name(crunch_id, "commands")
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises WorldError."""
        self._producer = make_producer(self._bootstrap)
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            reason = await why_silent(self._bootstrap) or error
            raise WorldError(f"Kafka at {self._bootstrap} did not answer: {reason}") from error

    async def stop(self) -> None:
        """Let go."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, command: Event) -> int:
        """Append; the offset. Raises WorldError when the broker has not taken it in 10 s."""
        if self._producer is None:
            raise RuntimeError
        try:
            sent = await asyncio.wait_for(
                self._producer.send_and_wait(self._topic, encode_event(command)), SEND_SECONDS_MAX
            )
        except (KafkaError, TimeoutError) as error:
            raise WorldError(
                f"the command could not be written to Kafka: {error or type(error).__name__}"
            ) from error
        return int(sent.offset)
