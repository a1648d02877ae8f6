"""Append commands to the topic `commands`, the only topic that the API and the operator's tools write.

A record that was handed to the producer cannot be taken back: it may arrive long after its caller gave up. A failure
before the hand-over is therefore a WorldError (nothing was written, and nothing will be), a failure after it an
OutcomeUnknownError.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.probe import why_silent
from coordinator.streams.events import Event
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError, text_of
from coordinator.streams.topology import topic_name

SEND_SECONDS_MAX = 10.0
_log = structlog.get_logger()


class KafkaCommandPort:
    """Appends commands to the topic, and returns an offset only once the broker has acknowledged the record."""

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
        """Close the connection."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, command: Event) -> int:
        """Append a command; returns its offset.

        Raises WorldError when the command was not written and will not be. Raises OutcomeUnknownError when the broker
        has not acknowledged it within SEND_SECONDS_MAX: it may still arrive.
        """
        if self._producer is None:
            raise RuntimeError
        ends_at = asyncio.get_running_loop().time() + SEND_SECONDS_MAX
        try:
            async with asyncio.timeout_at(ends_at):
                queued = await self._producer.send(self._topic, encode_event(command))
        except (
            KafkaError,
            TimeoutError,
        ) as error:  # it waited for the topic or for room: nothing is queued
            raise WorldError(f"the command was not written to Kafka: {text_of(error)}") from error
        try:
            async with asyncio.timeout_at(ends_at):
                sent = await asyncio.shield(queued)
        except (KafkaError, TimeoutError) as error:
            queued.add_done_callback(lambda done: _log_outcome(command, done))
            raise OutcomeUnknownError(
                f"Kafka has not confirmed the command: {text_of(error)}; it may still arrive"
            ) from error
        return int(sent.offset)


async def send_command(bootstrap: str, crunch_id: str, command: Event) -> int:
    """Connect, append one command, disconnect; returns its offset. Raises as `KafkaCommandPort` does."""
    port = KafkaCommandPort(bootstrap, crunch_id)
    await port.start()
    try:
        return await port.send(command)
    finally:
        await port.stop()


def _log_outcome(command: Event, done: asyncio.Future[Any]) -> None:
    """Log what became of a command after its caller got an OutcomeUnknownError."""
    if done.cancelled() or (error := done.exception()) is not None:
        reason = "cancelled" if done.cancelled() else text_of(error)  # type: ignore[arg-type]
        _log.warning("command_not_confirmed", command_id=command.id, reason=reason)
    else:
        _log.warning("command_arrived_late", command_id=command.id, offset=done.result().offset)
