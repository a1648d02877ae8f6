"""Back up the topics into one file while the node runs, and restore them: every record with its offset, and its blobs.

The file is a gzip stream of length-prefixed MessagePack: a head, the records topic by topic, and a tail with their
number and sha256. A restore writes each record at its old offset, because decisions name offsets of other topics. It
therefore fills only topics without a history.

The backup takes the ends of the topics downstream first. So everything that a copied decision was made of is in the
copy too; what a stage had not decided by then, it decides after the restore, as after a crash.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import IO, Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import PARTITION, fetched, make_producer
from coordinator.infra.kafka.groups import refuse_working
from coordinator.infra.kafka.topics import empty_topics, new_birth
from coordinator.infra.log.cluster_state import look_at_log
from coordinator.infra.log.copy_file import (
    FORMAT,
    FORMATS_READ,
    Copied,
    CopiedBlob,
    Entry,
    Head,
    Tail,
    framed,
    read_entries,
)
from coordinator.infra.log.positions import reading
from coordinator.streams.events import Blob
from coordinator.streams.large_answers import blobs_of
from coordinator.streams.log.birth import birth_records, read_birth
from coordinator.streams.log.errors import BlobLostError, LogError, OperatorError, WorldError
from coordinator.streams.log.integrity import TopicFound, check_log
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.ports import BlobReader, Blobs
from coordinator.streams.topology import TOPICS, topic_name

DOWNSTREAM_FIRST = (
    *("checkpoints", "snapshots", "scores", "predictions", "models", "inputs", "feeds", "commands"),
    "dead-letters",
)
BLOBS_IN = ("commands", "feeds", "inputs", "predictions")
"""The topics whose events may name a blob."""
STALL_SECONDS_MAX = 30.0
IN_FLIGHT_MAX = 500
OnProgress = Callable[[int, int], None]


_encode = msgspec.msgpack.Encoder().encode


async def write_backup(
    bootstrap: str,
    crunch_id: str,
    out: IO[bytes],
    on_progress: OnProgress,
    blobs: BlobReader,
    *,
    compress_level: int = 9,
) -> Tail:
    """Copy all topics as they are now, and the blobs that they name. A blob that is lost does not stop the copy: the
    tail names it. `compress_level` is gzip's.

    Raises WorldError, WrongLogError (topics are missing or incomplete), LogError (a topic has gaps).
    """
    named: dict[str, Blob] = {}
    birth_id = check_log(crunch_id, await look_at_log(bootstrap, crunch_id), None, bootstrap)
    async with reading(bootstrap) as consumer:
        ends = await _ends(consumer, crunch_id)
        total, count, digest = sum(ends.values()), 0, hashlib.sha256()
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=compress_level, mtime=0) as file:
            _put(file, Head(FORMAT, crunch_id, birth_id, ends))
            for topic in TOPICS:
                counter = counter_for(topic)
                async for record in _records(consumer, topic_name(crunch_id, topic), ends[topic]):
                    value = record.value
                    encoded = _encode(Copied(topic, record.offset, record.timestamp, value))
                    digest.update(encoded)
                    file.write(framed(encoded))
                    count += 1
                    on_progress(count, total)
                    if topic in BLOBS_IN and (decision := counter.read(record.offset, value)) is not None:
                        named |= {blob.sha256: blob for blob in blobs_of(decision)}
            lost: list[str] = []
            for blob in named.values():
                try:
                    encoded = _encode(CopiedBlob(await asyncio.to_thread(blobs.read, blob)))
                except BlobLostError as error:
                    lost.append(str(error))
                    continue
                digest.update(encoded)
                file.write(framed(encoded))
            copied = len(named) - len(lost)
            tail = Tail(count + copied, digest.hexdigest(), copied, lost)
            _put(file, tail)
    return tail


async def read_backup(
    bootstrap: str,
    crunch_id: str,
    source: IO[bytes],
    on_progress: OnProgress,
    blobs: Blobs,
    *,
    other_crunch: bool = False,
    patience_seconds: float = 0.0,
) -> Tail:
    """Restore a backup, each record at its offset, into topics that are missing or hold only their birth record, and
    its blobs into `blobs`.

    Workers that died are waited for, `patience_seconds` at most: their session has to end (`refuse_working`).
    A topic that holds a history stays as it is. It must be the topic that was copied, and be at least as long. Finally
    the topics are checked against each other: a topic that is shorter than the decisions of another topic say is an
    error that names it.

    Raises OperatorError (not a backup; a backup of another crunch, unless `other_crunch`; topics of another birth or
    with a shorter history; running workers of the crunch), LogError (the backup was cut or altered: what was written
    until then stays, so the topics must be deleted and made again), WorldError.
    """
    entries = read_entries(source)
    head = next(entries, None)
    if not isinstance(head, Head) or head.format not in FORMATS_READ:
        raise OperatorError("this is not a backup of topics")
    if head.crunch_id != crunch_id and not other_crunch:
        raise OperatorError(f"this is a backup of crunch {head.crunch_id}, not of {crunch_id}")
    await refuse_working(bootstrap, crunch_id, patience_seconds)
    there = (await look_at_log(bootstrap, crunch_id)).topics
    not_empty = {topic: span for topic, span in there.items() if _stays(head, topic, span)}
    for topic, span in not_empty.items():
        if span.end < head.ends[topic] or span.begin:
            raise OperatorError(
                f"topic {topic_name(crunch_id, topic)} holds {span.end} records, fewer than the backup's "
                f"{head.ends[topic]}: a restore cannot complete a topic that has records; delete the topic first, "
                "with Kafka's tools"
            )
    await empty_topics(bootstrap, crunch_id, [topic for topic in TOPICS if topic not in not_empty])
    births = (
        None
        if head.crunch_id == crunch_id
        else birth_records(crunch_id, new_birth(before=head.birth_id, copy_of=head.crunch_id))
    )
    firsts = {topic: span.first for topic, span in not_empty.items()}
    producer = make_producer(bootstrap)
    try:
        await producer.start()
        writer = _Restore(producer, crunch_id, firsts, births, blobs)
        tail = await writer.write(entries, sum(head.ends.values()), on_progress)
    except KafkaError as error:
        raise WorldError(f"Kafka at {bootstrap} refused further records: {error!r}") from error
    finally:
        await producer.stop()
    check_log(crunch_id, await look_at_log(bootstrap, crunch_id), None, bootstrap)
    return tail


def _stays(head: Head, topic: str, span: TopicFound) -> bool:
    """Whether a topic holds more than a birth record, or the birth record that is all that the backup has of it. Made
    again, it would be another topic for every process that remembers its id.
    """
    born = read_birth(span.first)
    if span.end > 1 or born is None:
        return span.end > 0
    return born.data.birth_id == head.birth_id and head.ends[topic] <= span.end


class KafkaRecords:
    """A `RecordSource` of a crunch's topics, once it is open."""

    def __init__(self, bootstrap: str, crunch_id: str, birth_id: str) -> None:
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self.birth_id = birth_id

    @classmethod
    async def open(cls, bootstrap: str, crunch_id: str) -> KafkaRecords:
        """See that the topics are whole. Raises WrongLogError, WorldError."""
        birth_id = check_log(crunch_id, await look_at_log(bootstrap, crunch_id), None, bootstrap)
        return cls(bootstrap, crunch_id, birth_id)

    async def ends(self) -> dict[str, int]:
        """See `RecordSource`."""
        async with reading(self._bootstrap) as consumer:
            return await _ends(consumer, self._crunch_id)

    async def records(self, topic: str, start: int, end: int) -> AsyncIterator[Copied]:
        """See `RecordSource`."""
        async with reading(self._bootstrap) as consumer:
            async for record in _records(consumer, topic_name(self._crunch_id, topic), end, start):
                yield Copied(topic, record.offset, record.timestamp, record.value)


class _Restore:
    """Writes the records of a backup.

    `firsts`: topic -> birth record of each topic that stays as it is. `births`: topic -> birth record to write in place
    of the copied one; None keeps the copied ones (the same crunch).
    """

    def __init__(
        self,
        producer: Any,
        crunch_id: str,
        firsts: Mapping[str, bytes | None],
        births: Mapping[str, bytes] | None,
        blobs: Blobs,
    ) -> None:
        self._blobs = blobs
        self._producer = producer
        self._crunch_id = crunch_id
        self._firsts = firsts
        self._births = births

    async def write(self, entries: Iterator[Entry], total: int, on_progress: OnProgress) -> Tail:
        """Write every record to its topic; returns the backup's tail. Raises LogError, OperatorError, KafkaError."""
        digest = hashlib.sha256()
        waiting: list[tuple[Copied, Any]] = []
        for count, entry in enumerate(entries):
            if isinstance(entry, Tail):
                await _settle(waiting)
                if (entry.records, entry.sha256) != (count, digest.hexdigest()):
                    raise LogError("the backup was altered: its records are not those that were copied")
                return entry
            if isinstance(entry, CopiedBlob):
                digest.update(_encode(entry))
                await asyncio.to_thread(self._blobs.put, entry.content)
                continue
            if isinstance(entry, Head) or entry.topic not in TOPICS:
                raise LogError("the backup is damaged: it contains something that is not a record")
            digest.update(_encode(entry))
            name = topic_name(self._crunch_id, entry.topic)
            if entry.topic in self._firsts:
                if entry.offset == 0 and entry.value != self._firsts[entry.topic]:
                    raise OperatorError(f"topic {name} holds other records than the backup")
                continue
            value = entry.value
            if entry.offset == 0 and self._births is not None:
                value = self._births[entry.topic]
            sent = await self._producer.send(
                name, value, partition=PARTITION, timestamp_ms=entry.timestamp_ms
            )
            waiting.append((entry, sent))
            if len(waiting) >= IN_FLIGHT_MAX:
                await _settle(waiting)
                on_progress(count, total)
        raise LogError("the backup was cut: its end is missing")


async def _settle(waiting: list[tuple[Copied, Any]]) -> None:
    """Wait for the acknowledgements, and check that each record has its old offset."""
    for copied, sent in waiting:
        offset = (await sent).offset
        if offset != copied.offset:
            raise LogError(
                f"topic {copied.topic}: record {copied.offset} was written at offset {offset}: another process writes "
                "to this topic"
            )
    waiting.clear()


def _put(file: gzip.GzipFile, entry: Head | Tail) -> None:
    encoded = _encode(entry)
    file.write(framed(encoded))


async def _ends(consumer: AIOKafkaConsumer, crunch_id: str) -> dict[str, int]:
    there = await consumer.topics()
    ends = {}
    for topic in DOWNSTREAM_FIRST:
        name = topic_name(crunch_id, topic)
        if name not in there:
            raise OperatorError(f"topic {name} does not exist; create it with `coordinator topics create`")
        partition = TopicPartition(name, PARTITION)
        ends[topic] = (await consumer.end_offsets([partition]))[partition]
        begins = (await consumer.beginning_offsets([partition]))[partition]
        if begins:
            raise LogError(
                f"topic {name} begins at offset {begins}: its first records are gone, so a copy would be incomplete"
            )
    return ends


async def _records(consumer: AIOKafkaConsumer, name: str, end: int, start: int = 0) -> Any:
    if end <= start:
        return
    partition = TopicPartition(name, PARTITION)
    consumer.assign([partition])
    consumer.seek(partition, start)
    expected, idle = start, 0.0
    while expected < end:
        batches = await fetched(consumer, 500)
        idle = 0.0 if batches else idle + 0.5
        if idle > STALL_SECONDS_MAX:
            raise WorldError(
                f"topic {name} delivered no record at offset {expected} for {STALL_SECONDS_MAX:g} s"
            )
        for record in batches.get(partition, []):
            if expected == end:
                return
            if record.offset != expected:
                raise LogError(f"topic {name} has no offset {expected}, so a copy could not keep the offsets")
            expected += 1
            yield record
