"""Reads single decisions of the topics by their offsets, for who knows where they stand.

A read model says at which offset a row was written; the append there has all that the row leaves out. The decision at
an offset counted, for a read model has folded it, so the counting rule is not applied again. Nothing is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import PARTITION, fetched, make_reader, stop_reader
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Append, Need, decode_append, record_named
from coordinator.streams.log.errors import TruncatedTopicError, WorldError, text_of
from coordinator.streams.topology import topic_name

FETCH_BYTES = 32 * 1024
"""Small, so that few appends behind the wanted one are fetched. The broker sends at least one batch."""
READ_SECONDS_MAX = 10.0
WAIT_MS = 200
APART_MAX = 8
"""Offsets at most so far apart are read in one go."""
PARTS_SEARCHED_MAX = 512
"""How far before a decision's last part its others are looked for: appends that do not count may lie between."""
Wanted = Mapping[str, Collection[int]]
"""Topic -> offsets, each that of a decision's last part."""
Found = dict[tuple[str, int], Decision]
"""(topic, offset) -> the decision whose last part is there."""


class KafkaAppends:
    """`read(wanted)` gives the decisions at these offsets. Blocking, for a thread without an event loop."""

    def __init__(self, bootstrap: str, crunch_id: str) -> None:
        self._bootstrap, self._crunch_id = bootstrap, crunch_id

    def __call__(self, wanted: Wanted) -> Found:
        """Raises WorldError (Kafka does not answer), TruncatedTopicError, UnknownEventError."""
        if not any(wanted.values()):
            return {}
        return asyncio.run(self._read(wanted))

    async def _read(self, wanted: Wanted) -> Found:
        consumer = make_reader(self._bootstrap, wait_ms=1, fetch_bytes=FETCH_BYTES)
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                await consumer.start()
                return await self._found(consumer, wanted)
        except (KafkaError, OSError) as error:  # TimeoutError is an OSError
            raise WorldError(f"Kafka at {self._bootstrap} does not answer: {text_of(error)}") from error
        finally:
            await stop_reader(consumer)

    async def _found(self, consumer: AIOKafkaConsumer, wanted: Wanted) -> Found:
        decisions: Found = {}
        cut: dict[str, list[int]] = {}
        for wave in waves_of(wanted):
            spans = {topic: (run[0], run[-1]) for topic, run in wave.items()}
            for topic, records in (await self._records(consumer, spans)).items():
                appends = _decoded(topic, records)
                for offset in wave[topic]:
                    if offset in appends and appends[offset].part[1] > 1:
                        cut.setdefault(topic, []).append(offset)
                    else:
                        decisions[topic, offset] = decision_at(topic, offset, appends)
        for topic, offsets in cut.items():
            for offset in offsets:
                first = max(0, offset - PARTS_SEARCHED_MAX)
                records = (await self._records(consumer, {topic: (first, offset)}))[topic]
                decisions[topic, offset] = decision_at(topic, offset, _decoded(topic, records))
        return decisions

    async def _records(
        self, consumer: AIOKafkaConsumer, spans: Mapping[str, tuple[int, int]]
    ) -> dict[str, list[tuple[int, bytes]]]:
        """(offset, value) of the records first..last of each topic, all topics in one fetch where they fit."""
        topics = {TopicPartition(topic_name(self._crunch_id, topic), PARTITION): topic for topic in spans}
        consumer.assign(list(topics))
        for partition, topic in topics.items():
            consumer.seek(partition, spans[topic][0])
        records: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in spans}
        waiting = set(topics)
        while waiting:
            for partition, batch in (await fetched(consumer, WAIT_MS)).items():
                topic = topics[partition]
                last = spans[topic][1]
                records[topic] += [
                    (record.offset, record.value or b"") for record in batch if record.offset <= last
                ]
                if batch and batch[-1].offset >= last and partition in waiting:
                    waiting.discard(partition)
                    consumer.pause(partition)
        return records


def waves_of(wanted: Wanted) -> list[dict[str, list[int]]]:
    """The runs of all topics, so that each wave has at most one of each topic: the fewest questions to the broker."""
    waves: list[dict[str, list[int]]] = []
    for topic, offsets in wanted.items():
        for i, run in enumerate(runs_of(offsets)):
            if i == len(waves):
                waves.append({})
            waves[i][topic] = run
    return waves


def runs_of(offsets: Collection[int]) -> list[list[int]]:
    """The offsets in order, in runs whose neighbours are at most APART_MAX apart."""
    runs: list[list[int]] = []
    for offset in sorted(set(offsets)):
        if runs and offset - runs[-1][-1] <= APART_MAX:
            runs[-1].append(offset)
        else:
            runs.append([offset])
    return runs


def _decoded(topic: str, records: Sequence[tuple[int, bytes]]) -> dict[int, Append]:
    """Offset -> the append there, of those that are one."""
    appends: dict[int, Append] = {}
    for offset, record in records:
        with record_named(topic, offset):
            if (append := decode_append(record)) is not None:
                appends[offset] = append
    return appends


def decision_at(topic: str, offset: int, appends: Mapping[int, Append]) -> Decision:
    """The counted decision whose last part is at an offset. Raises TruncatedTopicError where a part is missing."""
    last = appends.get(offset)
    if last is None:
        raise TruncatedTopicError(f"{topic} offset {offset} does not hold an append any more")
    parts: dict[int, tuple[int, Append]] = {}
    for place, append in appends.items():
        same = (append.epoch, append.seq, append.part[1]) == (last.epoch, last.seq, last.part[1])
        if place <= offset and same and not append.claim and append.state is None:
            parts[append.part[0]] = place, append
    if sorted(parts) != list(range(1, last.part[1] + 1)):
        raise TruncatedTopicError(f"{topic} offset {offset}: parts of its decision are missing")
    first = parts[1][0]
    return Decision(
        topic,
        first,
        offset,
        last.seq,
        Need(first, last.epoch, last.seq - 1),
        last.upto,
        last.need,
        tuple(append.events for _, (_, append) in sorted(parts.items())),
    )
