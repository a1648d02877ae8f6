"""Appending a command to `commands`: the one topic that the API and the operator's tools write.

What was handed to the producer cannot be taken back: it may arrive long after its caller gave up. So a failure before
that is a WorldError (nothing was written, and nothing will be), one after it an OutcomeUnknownError.
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
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError
from coordinator.streams.topology import topic_name

SEND_SECONDS_MAX = 10.0
_log = structlog.get_logger()


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
        """Append; the offset.

        Raises WorldError when it was not written and will not be, OutcomeUnknownError when the broker has not confirmed
        it within 10 s: it may still arrive.
        """
        if self._producer is None:
            raise RuntimeError
        ends_at = asyncio.get_running_loop().time() + SEND_SECONDS_MAX
        try:
            async with asyncio.timeout_at(ends_at):
                queued = await self._producer.send(self._topic, encode_event(command))
        except (KafkaError, TimeoutError) as error:  # it waited for the topic or for room: nothing is queued
            raise WorldError(f"the command was not written to Kafka: {_said(error)}") from error
        try:
            async with asyncio.timeout_at(ends_at):
                sent = await asyncio.shield(queued)
        except (KafkaError, TimeoutError) as error:
            queued.add_done_callback(lambda done: _say_outcome(command, done))
            raise OutcomeUnknownError(
                f"Kafka has not confirmed the command: {_said(error)}; it may still arrive"
            ) from error
        return int(sent.offset)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _say_outcome(command: Event, done: asyncio.Future[Any]) -> None:
    """What became of a command whose caller was told that nobody knows."""
    if done.cancelled() or (error := done.exception()) is not None:
        reason = "cancelled" if done.cancelled() else _said(error)  # type: ignore[arg-type]
        _log.warning("command_not_confirmed", command_id=command.id, reason=reason)
    else:
        _log.warning("command_arrived_late", command_id=command.id, offset=done.result().offset)
