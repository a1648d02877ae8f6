"""Reads the crunch's topics over and over, slowly, to find records that the disk has altered, and blobs that are lost.

Kafka sends the bytes of its files unchecked; only a reader compares checksums, and nobody else reads old records while
the node runs. A pass reads all topics at SCRUB_MB_PER_MINUTE, the small ones that payments depend on first, and
then at the same rate the blobs that they name. The next pass begins at least PASS_SECONDS_MIN later.
"""

from __future__ import annotations

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from coordinator.infra.kafka.clients import PARTITION, fetched, stand_at
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.events import Blob
from coordinator.streams.large_answers import blobs_of
from coordinator.streams.log.errors import (
    BlobLostError,
    CorruptTopicError,
    OperatorError,
    TruncatedTopicError,
    UnknownEventError,
    WorldError,
    text_of,
)
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.ports import BlobLook
from coordinator.streams.topology import topic_name

PASS_SECONDS_MIN = 20.0
RETRY_SECONDS = 5.0
READ_MS = 200
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.1, 2.0
"""Between two looks that give no record."""
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
BLOBS_NAMED_IN = ("inputs", "predictions", "feeds")
"""Not in the commands: what a refused one names, nobody needs."""

log = structlog.get_logger()


class LogScrub:
    """`damage`: topic -> the damage that its last reading found. A topic not in it was intact, or was not read yet.

    `lost`: SHA-256 of a blob -> what is wrong with it, and where the log names it. `blobs_away`: why the last look at
    the blobs was not possible, "" if it was. `given_up`: those of which the
    operator has said that nobody has them (`log give-up`).
    """

    def __init__(
        self, bootstrap: str, crunch_id: str, mb_per_minute: float, blobs: BlobLook | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self._bytes_per_second = mb_per_minute * 1e6 / 60
        self._blobs = blobs
        self.damage: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.blobs_away = ""
        self.given_up: set[str] = set()
        self._unremovable: set[str] = set()
        self.passes = 0

    def blob_faults(self) -> dict[str, str]:
        """What is to be reported of the blobs, by the SHA-256; "store" is the store itself."""
        return {**self.lost, "store": self.blobs_away} if self.blobs_away else self.lost

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
        named: dict[str, tuple[Blob, str]] = {}
        async with reading(self._bootstrap) as consumer:
            for topic in ORDER:
                _, end = (await offsets(consumer, self._crunch_id))[topic]
                try:
                    await self._read(consumer, topic, end, named)
                except CorruptTopicError as error:
                    if topic not in self.damage:
                        log.exception("topic_damaged", topic=error.topic, offset=error.offset)
                    self.damage[topic] = str(error)
                except TruncatedTopicError:
                    pass  # the log's watch (`own_log.py`) names the topic and ends this process
                else:
                    self.damage.pop(topic, None)
        if self._blobs is not None:
            await self.look_at_blobs(self._blobs, named)
        self.passes += 1

    async def look_at_blobs(self, blobs: BlobLook, named: dict[str, tuple[Blob, str]]) -> None:
        """Look at each blob that the topics name. Raises WorldError for a store that is out of reach."""
        try:
            await self._look_at_each(blobs, named)
        except WorldError as error:
            self.blobs_away = str(error)
            raise
        self.blobs_away = ""

    async def _look_at_each(self, blobs: BlobLook, named: dict[str, tuple[Blob, str]]) -> None:
        # Also those that were met here: not every store lists its notes.
        notes = {*await asyncio.to_thread(blobs.notes), *self.given_up}
        for sha256, (blob, where) in named.items():
            try:
                await asyncio.to_thread(blobs.look, blob)
            except BlobLostError as error:
                if reason := await asyncio.to_thread(blobs.given_up, sha256):
                    if sha256 not in self.given_up:
                        log.warning("blob_given_up", where=where, sha256=sha256, reason=reason)
                    self.given_up.add(sha256)
                    self.lost.pop(sha256, None)
                    continue
                if sha256 not in self.lost:
                    log.error("blob_lost", where=where, reason=str(error))  # noqa: TRY400 - for the operator
                self.lost[sha256] = f"{error}; {where} names it"
            else:
                self.lost.pop(sha256, None)
                if sha256 in notes:
                    await self._take_back(blobs, sha256, where)
            await asyncio.sleep(blob.bytes / self._bytes_per_second if self._bytes_per_second else 0)

    async def _take_back(self, blobs: BlobLook, sha256: str, where: str) -> None:
        """A blob that was given up is whole: its next loss is to be reported."""
        try:
            await asyncio.to_thread(blobs.take_back, sha256)
        except OperatorError as error:
            if sha256 not in self._unremovable:
                log.warning("blob_note_stays", where=where, sha256=sha256, reason=text_of(error))
            self._unremovable.add(sha256)
        else:
            log.info("blob_is_back", where=where, sha256=sha256)
            self._unremovable.discard(sha256)
        self.given_up.discard(sha256)

    async def _read(
        self, consumer: AIOKafkaConsumer, topic: str, end: int, named: dict[str, tuple[Blob, str]]
    ) -> None:
        partition = TopicPartition(topic_name(self._crunch_id, topic), PARTITION)
        await stand_at(consumer, partition, 0)
        loop = asyncio.get_running_loop()
        counter = counter_for(topic) if topic in BLOBS_NAMED_IN else None
        expected, moved_at, pause_seconds = 0, loop.time(), PAUSE_SECONDS_MIN
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
                try:
                    decision = counter.read(record.offset, record.value) if counter is not None else None
                    for blob in blobs_of(decision) if decision is not None else ():
                        named.setdefault(blob.sha256, (blob, f"{partition.topic} at offset {record.offset}"))
                except UnknownEventError:
                    counter = None  # of a newer version: the read models say so
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
            else:
                # A batch of which aiokafka can read nothing is fetched again at once, as fast as the broker answers.
                consumer.pause(partition)
                await asyncio.sleep(pause_seconds)
                consumer.resume(partition)
                pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
