"""How far the stages are and whether the feed moves, read from the ends of the topics: for when the API is down.

The cost does not grow with the log: the last records of each topic, and all of `checkpoints`, which has a few events a
period. Each topic is counted from the first complete append among its last records. Reads only.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from coordinator.infra.kafka.clients import read_records
from coordinator.infra.log.positions import TAIL_RECORDS, PipelineWatch, offsets, reading
from coordinator.streams.events import (
    ClockTicked,
    CrunchConfigured,
    FeedRecordReceived,
    FeedStateChanged,
)
from coordinator.streams.log.counting import Decision, TailCounter
from coordinator.streams.log.envelope import Position
from coordinator.streams.topology import STREAMS, topic_name

FEED_RECORDS = 1_000
Wanted = tuple[str, str]
"""(stage, source)"""


class Waiting(msgspec.Struct, frozen=True):
    """A stage has not decided a record of one of its sources.

    `since` is when that record was written, `decided` when the stage last wrote anything (None: never), both in ms of
    the wall clock.
    """

    stage: str
    text: str
    since: int
    decided: int | None


class FeedEnd(msgspec.Struct):
    """What the last records of `feeds` say.

    `clock`, `since` and `heard` are event times in ms: the feed's clock, the first record that was read, and each
    subject's newest record. `ticked` is the wall-clock time in ms at which the clock last moved. `states`: source ->
    state.
    """

    clock: int = 0
    ticked: int | None = None
    since: int = 0
    heard: dict[str, int] = msgspec.field(default_factory=dict)
    states: dict[str, str] = msgspec.field(default_factory=dict)


class LogProgress:
    """The progress that follows from the records it reads: topic by topic, each in order."""

    def __init__(self, crunch_id: str) -> None:
        self._watch = PipelineWatch(crunch_id)
        self._counters: dict[str, TailCounter] = {}
        self._wanted: dict[Wanted, list[tuple[Position, int]]] = defaultdict(list)
        self._written: dict[str, int] = {}
        self.feed = FeedEnd()

    @property
    def deadline_ms(self) -> int:
        """How long the models may take to answer the newest input."""
        return self._watch.deadline_ms

    def read(self, topic: str, offset: int, record: bytes | None, written_at: int) -> None:
        """Take the next record of a topic. Raises UnknownEventError naming the record."""
        counter = self._counters.get(topic)
        if counter is None:
            counter = self._counters[topic] = TailCounter(topic)
        decision = counter.read(offset, record)
        if decision is None:
            return
        wanted_before = self._watch.wanted
        self._watch.take(decision)
        self._written[topic] = written_at
        for which, position in self._watch.wanted.items():
            if position != wanted_before.get(which):
                self._wanted[which].append((position, written_at))
        if topic == "feeds":
            self._fold_feed(decision, written_at)
        elif topic == "checkpoints":
            for event in decision.events:
                if isinstance(event, CrunchConfigured):
                    self._watch.know(event)

    def _fold_feed(self, decision: Decision, written_at: int) -> None:
        feed = self.feed
        for event in decision.events:
            match event:
                case FeedRecordReceived(at=at, data=data):
                    feed.since = feed.since or at
                    feed.heard[data.subject] = max(at, feed.heard.get(data.subject, 0))
                case ClockTicked(at=at):
                    feed.since = feed.since or at
                    feed.clock, feed.ticked = at, written_at
                case FeedStateChanged(data=data):
                    feed.states[data.source] = data.state
                case _:
                    pass

    def waiting(self) -> list[Waiting]:
        """The stages that have something left to decide."""
        stages_waiting = []
        for (stage, source), wanted in self._wanted.items():
            done = tuple(self._watch.decided(stage, source))
            undecided = [written for position, written in wanted if position > done]
            if undecided:
                text = f"{stage} has decided {source} up to {done[0]}, not yet {wanted[-1][0][0]}"
                stages_waiting.append(Waiting(stage, text, undecided[0], self._written.get(stage)))
        return stages_waiting


async def look_at_ends(bootstrap: str, crunch_id: str) -> LogProgress:
    """Read the ends of the topics. Raises WorldError, OperatorError (a missing topic), LogError."""
    progress = LogProgress(crunch_id)
    async with reading(bootstrap) as consumer:
        ends = await offsets(consumer, crunch_id)
        whole = ("checkpoints",)
        for topic in (
            *whole,
            *(stream.topic for stream in STREAMS if stream.enveloped and stream.topic not in whole),
        ):
            start, end = ends[topic]
            if topic not in whole:
                start = max(start, end - (FEED_RECORDS if topic == "feeds" else TAIL_RECORDS))
            async for record in read_records(consumer, topic_name(crunch_id, topic), start, end):
                progress.read(topic, record.offset, record.value, record.timestamp)
    return progress
