"""Reads the crunch's topics over and over, slowly, to find records that the disk has altered.

Kafka sends the bytes of its files unchecked; only a reader compares checksums, and nobody else reads old records while
the node runs. A pass reads all topics at SCRUB_MB_PER_MINUTE, the small ones that payments depend on first. The next
pass begins at least PASS_SECONDS_MIN later.
"""

from __future__ import annotations

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from coordinator.infra.kafka.clients import PARTITION, fetched, stand_at
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.log.errors import (
    CorruptTopicError,
    OperatorError,
    TruncatedTopicError,
    WorldError,
    text_of,
)
from coordinator.streams.topology import topic_name

PASS_SECONDS_MIN = 20.0
RETRY_SECONDS = 5.0
READ_MS = 200
RECORDS_AT_ONCE = 100
"""They are decoded at once, on the API's event loop: this takes a few milliseconds."""
STALL_SECONDS_MAX = 20.0
RECORD_BYTES = 100
"""The cost of a record apart from its value, as bytes: many small records take time, too."""
ORDER = (
    "checkpoints",
    "snapshots",
    "models",
    "commands",
    "dead-letters",
    "inputs",
    "scores",
    "predictions",
    "feeds",
)

log = structlog.get_logger()


class LogScrub:
    """`damage`: topic -> the damage that its last reading found. A topic not in it was intact, or was not read yet."""

    def __init__(self, bootstrap: str, crunch_id: str, mb_per_minute: float) -> None:
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self._bytes_per_second = mb_per_minute * 1e6 / 60
        self.damage: dict[str, str] = {}
        self.passes = 0

    async def run(self) -> None:
        """Make passes until cancelled; wait for a broker that does not answer. With a rate of 0, return at once."""
        while self._bytes_per_second > 0:
            try:
                await self.read_all()
                await asyncio.sleep(PASS_SECONDS_MIN)
            # The log's watch reports a broker or a topic that is gone.
            except (OSError, WorldError, OperatorError) as error:
                log.info("scrub_waits", reason=text_of(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def read_all(self) -> None:
        """One pass. Raises WorldError, OperatorError (a missing topic)."""
        async with reading(self._bootstrap) as consumer:
            for topic in ORDER:
                _, end = (await offsets(consumer, self._crunch_id))[topic]
                try:
                    await self._read(consumer, topic, end)
                except CorruptTopicError as error:
                    if topic not in self.damage:
                        log.exception("topic_damaged", topic=error.topic, offset=error.offset)
                    self.damage[topic] = str(error)
                except TruncatedTopicError:
                    pass  # the log's watch (`own.py`) names the topic and ends this process
                else:
                    self.damage.pop(topic, None)
        self.passes += 1

    async def _read(self, consumer: AIOKafkaConsumer, topic: str, end: int) -> None:
        partition = TopicPartition(topic_name(self._crunch_id, topic), PARTITION)
        await stand_at(consumer, partition, 0)
        loop = asyncio.get_running_loop()
        expected, moved_at = 0, loop.time()
        while expected < end:
            began = loop.time()
            records = (await fetched(consumer, READ_MS, RECORDS_AT_ONCE)).get(partition, [])
            for record in records:
                # The checksum does not cover the offset of a batch. Our topics have a record at every offset.
                if record.offset != expected:
                    raise CorruptTopicError(
                        partition.topic, expected, f"the next record has offset {record.offset}"
                    )
                expected = record.offset + 1
            if records:
                moved_at = loop.time()
                cost = sum(len(record.value or b"") + RECORD_BYTES for record in records)
                await asyncio.sleep(max(0.0, cost / self._bytes_per_second - (moved_at - began)))
            elif (position := await consumer.position(partition)) > expected:
                raise CorruptTopicError(partition.topic, expected, f"the next record is at {position}")
            elif loop.time() - moved_at > STALL_SECONDS_MAX:
                await consumer.end_offsets(
                    [partition]
                )  # raises if the broker does not answer: then the record is not to blame
                raise CorruptTopicError(partition.topic, expected, f"no record for {STALL_SECONDS_MAX:g} s")
