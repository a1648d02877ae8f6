"""How far every stage is, read from the topics themselves: positions, lag, and whether everything is decided.

Reads the crunch's topics with a reader without a group, and applies the counting rule; writes nothing. A stage tells
how far it is by the `upto` of its counted appends. Records that make no decision move `upto` only now and then. So a
stage is idle not when `upto` is at the source's end, but when `upto` covers the last record that must make a decision:

    inputs       covers the last tick or terms in feeds
    predictions  covers the last InputReceived in inputs
    scores       covers the last InputResolved, and has written ScoredUntil for every period that InputsUntil passed
    snapshots    covers the last ScoredUntil or terms in scores
    checkpoints  covers the last terms in snapshots, the last PeriodClosed there that ended a checkpoint period, and
                 the last command

A watch folds only the events in this table; each `refresh` reads only what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import (
    PARTITION,
    make_reader,
    offsets_of,
    read_range,
    read_records,
    stop_reader,
)
from coordinator.infra.kafka.probe import why_silent
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    ClockTicked,
    CrunchConfigured,
    InputReceived,
    InputResolved,
    InputsUntil,
    PeriodClosed,
    ScoredUntil,
)
from coordinator.streams.log.counting import Counter, Decision, TailCounter
from coordinator.streams.log.envelope import Position
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.log.stage import NOTHING_DECIDED
from coordinator.streams.topology import BY_TOPIC, STREAMS, TOPICS, topic_name

CONNECT_SECONDS_MAX = 10.0
TAIL_RECORDS = 64
WATCHED = (
    "CrunchConfigured",
    "ClockTicked",
    "InputReceived",
    "InputResolved",
    "InputsUntil",
    "ScoredUntil",
    "PeriodClosed",
)
_WATCHED_BYTES = tuple(f'"{kind}"'.encode() for kind in WATCHED)
WATCHED_TOPICS = frozenset({"feeds", "inputs", "scores", "snapshots"})
MUST_DECIDE = {
    "feeds": (ClockTicked, CrunchConfigured),
    "scores": (ScoredUntil, CrunchConfigured),
    "snapshots": (CrunchConfigured,),
}
"""Topic -> its events for which every stage that it drives must make a decision."""


class StagePosition(msgspec.Struct, frozen=True):
    """How far a stage has decided one of its driving topics.

    `decided_offset` is -1 before its first decision. `lag_records` counts the source's records after it. This is an
    upper bound, because records that make no decision move `decided_offset` only now and then.
    """

    stage: str
    source: str
    decided_offset: int
    end_offset: int
    lag_records: int


class TopicTail(msgspec.Struct, frozen=True):
    """What a topic's last records say: its offsets, its owner's epoch, and how many decisions it holds."""

    topic: str
    start_offset: int
    end_offset: int
    epoch: int
    decisions: int
    upto: dict[str, Position]
    decided_at: int | None = None
    """Event time (ms) of its last decision that holds events; None if none of the last records does."""
    written_at: int | None = None
    """Wall-clock time (ms) at which its last record was written."""


def event_time(decision: Decision) -> int | None:
    """Event time (ms) of a decision; None for one without events, or before all time: the first terms of a crunch."""
    return decision.events[-1].at or None if decision.events else None


@asynccontextmanager
async def reading(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A started reader without a group. Raises WorldError if the broker does not answer in CONNECT_SECONDS_MAX, and for
    what the reader raises of a broker that stopped answering later: a caller that continues after an outage waits only
    for that.
    """
    consumer = make_reader(bootstrap)
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            await consumer.start()
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        await stop_reader(consumer)
        reason = await why_silent(bootstrap) or str(error) or f"waited {CONNECT_SECONDS_MAX:g} s"
        raise WorldError(f"Kafka at {bootstrap} does not answer ({reason})") from error
    try:
        yield consumer
    except KafkaError as error:
        raise WorldError(f"Kafka at {bootstrap} stopped answering: {error}") from error
    finally:
        await stop_reader(consumer)


async def offsets(consumer: AIOKafkaConsumer, crunch_id: str) -> dict[str, tuple[int, int]]:
    """Topic -> (first offset, end offset), for each of the crunch's topics. Raises OperatorError if one is missing."""
    existing = await consumer.topics()
    names = {topic: topic_name(crunch_id, topic) for topic in TOPICS}
    if missing := [name for name in names.values() if name not in existing]:
        raise OperatorError(
            f"topic {missing[0]} does not exist; create it with `coordinator topics create` (is "
            f"CRUNCH_ID={crunch_id} right?)"
        )
    partitions = {topic: TopicPartition(name, PARTITION) for topic, name in names.items()}
    starts, ends = await offsets_of(consumer, partitions.values())
    return {topic: (starts[partition], ends[partition]) for topic, partition in partitions.items()}


async def topic_ends(bootstrap: str, crunch_id: str) -> dict[str, int]:
    """Topic -> end offset. Raises WorldError, OperatorError (a missing topic)."""
    async with reading(bootstrap) as consumer:
        return {topic: end for topic, (_, end) in (await offsets(consumer, crunch_id)).items()}


async def read_tails(bootstrap: str, crunch_id: str, records_max: int = TAIL_RECORDS) -> list[TopicTail]:
    """Every topic's tail, from its last records alone: the cost does not grow with the log.

    `TailCounter` may count a decision too many for an instant after a failed send. `PipelineWatch` is exact, and reads
    everything once. Raises WorldError, OperatorError (a missing topic), UnknownEventError naming the record.
    """
    tails = []
    async with reading(bootstrap) as consumer:
        for topic, (start, end) in (await offsets(consumer, crunch_id)).items():
            counter, decisions = TailCounter(topic), 0
            upto: dict[str, Position] = {}
            decided_at = written_at = None
            if BY_TOPIC[topic].enveloped:
                first = max(start, end - records_max)
                async for record in read_records(consumer, topic_name(crunch_id, topic), first, end):
                    written_at = record.timestamp
                    if (decision := counter.read(record.offset, record.value)) is not None:
                        decisions = decision.seq
                        upto.update(decision.upto)
                        decided_at = event_time(decision) or decided_at
            else:
                decisions = end - start
            tails.append(TopicTail(topic, start, end, counter.epoch, decisions, upto, decided_at, written_at))
    return tails


def stage_positions(tails: list[TopicTail]) -> list[StagePosition]:
    """How far each stage is behind each topic that drives it, in the topology's order."""
    by_topic = {tail.topic: tail for tail in tails}
    positions = []
    for stream in STREAMS:
        for source in stream.driven_by:
            if source in by_topic:
                decided = by_topic[stream.topic].upto.get(source, NOTHING_DECIDED)[0]
                end = by_topic[source].end_offset
                positions.append(StagePosition(stream.topic, source, decided, end, max(0, end - 1 - decided)))
    return positions


class PipelineWatch:
    """The exact progress of the pipeline: folds every counted decision of every topic, in order."""

    def __init__(self, crunch_id: str) -> None:
        self._crunch_id = crunch_id
        self._counters = {topic: counter_for(topic) for topic in TOPICS}
        self._upto: dict[str, dict[str, Position]] = {topic: {} for topic in TOPICS}
        self._last: dict[tuple[str, str], Position] = {}
        """(stage, source) -> the last position in the source that the stage must decide."""
        self.clock = -1
        """The event time of the inputs, in ms; -1 before the first."""
        self.rehearsal = False
        """Whether the clock is replayed time."""
        self.deadline_ms = 0
        """How long the models may take to answer the newest input."""
        self._inputs_until = -1
        self._scored_until = -1
        self._scored_terms = TermsInForce()
        self._snapshot_terms = TermsInForce()

    @property
    def uncounted(self) -> int:
        """How many appends do not count: repeats, late appends of former owners, bytes that are not an append."""
        return sum(counter.uncounted for counter in self._counters.values() if isinstance(counter, Counter))

    async def refresh(self, consumer: AIOKafkaConsumer) -> int:
        """Read the new records of every topic; returns how many there were.

        Raises OperatorError (a missing topic), LogError, WorldError.
        """
        read = 0
        for topic, (start, end) in (await offsets(consumer, self._crunch_id)).items():
            counter = self._counters[topic]
            first = max(start, counter.next_offset)
            async for offset, record in read_range(consumer, topic_name(self._crunch_id, topic), first, end):
                read += 1
                decision = counter.read(offset, record)
                if decision is not None and topic == "commands":
                    self._last["checkpoints", topic] = (offset, 0)
                elif decision is not None and isinstance(counter, Counter):
                    self.take(decision)
        return read

    def take(self, decision: Decision) -> None:
        """Fold one counted decision. Raises UnknownEventError."""
        topic = decision.topic
        self._upto[topic].update(decision.upto)
        if topic not in WATCHED_TOPICS or not _holds_watched(decision):
            return  # a round of predictions or scores: decoding it costs twenty times more than the search for kinds
        for index, event in enumerate(decision.events):
            here = (decision.offset, index)
            if isinstance(event, MUST_DECIDE.get(topic, ())):
                for stream in STREAMS:
                    if topic in stream.driven_by:
                        self._last[stream.topic, topic] = here
            match event:
                case InputReceived(data=data):
                    self._last["predictions", "inputs"] = here
                    self.deadline_ms = data.deadline_at - data.point
                case InputResolved():
                    self._last["scores", "inputs"] = here
                case InputsUntil(data=data):
                    self._inputs_until, self.clock, self.rehearsal = data.until, data.clock, data.rehearsal
                case CrunchConfigured() if topic == "inputs":
                    self._last["scores", "inputs"] = here
                    self._scored_terms.add(event)
                case CrunchConfigured() if topic == "snapshots":
                    self._snapshot_terms.add(event)
                case ScoredUntil(data=data):
                    self._scored_until = data.until
                case PeriodClosed(data=data) if self._snapshot_terms.ends_checkpoint_period(
                    data.from_ms, data.until_ms
                ):
                    self._last["checkpoints", "snapshots"] = here
                case _:
                    pass

    def know(self, terms: CrunchConfigured) -> None:
        """Take terms from before the first record read: the ends of periods follow from them."""
        self._scored_terms.add(terms)
        self._snapshot_terms.add(terms)

    @property
    def wanted(self) -> dict[tuple[str, str], Position]:
        """(stage, source) -> the last position in the source that the stage must decide."""
        return dict(self._last)

    def decided(self, stage: str, source: str) -> Position:
        """The position in the source up to which the stage has decided."""
        return self._upto[stage].get(source, NOTHING_DECIDED)

    def mark_of(self, stage: str) -> tuple[tuple[str, Position], ...]:
        """How far the stage has decided all its sources: the value changes with every further decision."""
        return tuple(sorted((source, (at[0], at[1])) for source, at in self._upto[stage].items()))

    def waiting_stages(self) -> dict[str, str]:
        """Stage -> a sentence: how far it has decided, and what its source holds beyond that."""
        reason_of_stage: dict[str, str] = {}
        for (stage, source), positions in self._last.items():
            done = self.decided(stage, source)
            if tuple(done) < positions:
                reason_of_stage[stage] = (
                    f"{stage} has decided {source} up to {done[0]}, not yet {positions[0]}"
                )
        return reason_of_stage

    def waiting(self) -> list[str]:
        """A sentence for each stage that has something left to decide; empty when the pipeline is idle."""
        reasons = list(self.waiting_stages().values())
        if self._scored_terms and self._inputs_until >= 0:
            boundary, _ = self._scored_terms.snapshot_period(self._inputs_until)
            if boundary > self._scored_until:
                reasons.append(f"scores has not closed the periods up to {boundary}")
        return reasons


def _holds_watched(decision: Decision) -> bool:
    return any(any(kind in body for kind in _WATCHED_BYTES) for body in map(bytes, decision.bodies))


async def pipeline_waits_for(bootstrap: str, watch: PipelineWatch) -> list[str]:
    """What the pipeline still has to decide, as sentences. A `watch` reads only what is new since its last call.

    Raises WorldError, OperatorError (no topics), LogError.
    """
    async with reading(bootstrap) as consumer:
        await watch.refresh(consumer)
    return watch.waiting()
