"""Turns records into rows: applies the counting rule per topic, decodes each decision once, hands it to all
projections, and commits once per projection.

It knows no broker: the projector, a replay and the tests feed it in the same way. A decision that cannot be read
(unknown kind, newer version) raises before any projection has seen it; what was folded before it can still be
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.batch import Batch
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.topology import BY_TOPIC

UNCOUNTED = "uncounted"


class TopicReader:
    """Reads the decisions of one topic from its records, and counts the records that do not count."""

    def __init__(self, topic: str, start: Need, uncounted: int = 0) -> None:
        self.topic = topic
        self._counter = counter_for(topic, start)
        self._counter.uncounted = uncounted
        self.read: Callable[[int, bytes | None], Decision | None] = self._counter.read
        """The decision that a record completed, or None. Raises UnknownEventError."""
        self.state: Callable[[], Need] = self._counter.state
        """Where reading this topic can resume: before the first part of an incomplete decision."""

    @property
    def next_offset(self) -> int:
        """The offset after the last record read."""
        return self._counter.next_offset

    @property
    def uncounted(self) -> int:
        """How many records do not count: repeated sends, late appends of former owners, garbage."""
        return self._counter.uncounted

    @property
    def hole(self) -> str:
        """A sentence that says where the topic's owner skipped a number; "" if it did not."""
        if isinstance(self._counter, PlainCounter) or self._counter.hole is None:
            return ""
        offset, seq = self._counter.hole
        return f"{self.topic} offset {offset} holds decision {seq}, but {self._counter.seq + 1} is missing"

    @property
    def garbage(self) -> int | None:
        """The offset of the last record read that is no append of any version; None for a topic of many writers."""
        return None if isinstance(self._counter, PlainCounter) else self._counter.garbage


class Folder:
    """Projections and the readers of their topics.

    `until_ms`: decisions with a later event are left out. `limits`: projection -> topic -> the offset to stop before,
    to rebuild a store as it was at that position.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        *,
        until_ms: int | None = None,
        limits: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.projections = list(projections)
        self.readers: dict[str, TopicReader] = {}
        self.events = 0
        self.on_decision: Callable[[Decision], None] = lambda _decision: None
        """Called with each counted decision after it was decoded."""
        self._until_ms = until_ms
        self._limits = limits
        self._batches = {
            projection.name: Batch(projection.store, keeps_past=projection.keeps_past)
            for projection in self.projections
        }
        self._readers_of: dict[str, list[tuple[Projection, int]]] = {}
        self._moved: set[str] = set()
        self._changed: set[str] = set()
        for topic in BY_TOPIC:
            starts = [
                (projection.store.positions.get(topic, Need()), projection)
                for projection in self.projections
                if topic in projection.topics
            ]
            if starts:
                self._readers_of[topic] = [(projection, start.offset) for start, projection in starts]
                need, hindmost = min(starts, key=lambda pair: pair[0].offset)
                uncounted = hindmost.store.notes.get(UNCOUNTED, {}).get(topic, 0)
                self.readers[topic] = TopicReader(topic, need, uncounted)

    @property
    def uncounted(self) -> int:
        """How many records do not count, over all topics."""
        return sum(reader.uncounted for reader in self.readers.values())

    def positions(self) -> dict[str, int]:
        """Topic -> the offset where folding continues."""
        return {topic: reader.next_offset for topic, reader in self.readers.items()}

    def claims(self) -> dict[str, int]:
        """Topic of one writer -> how often it was claimed since its first record: each claim raises its epoch by 1."""
        return {
            topic: reader.state().epoch for topic, reader in self.readers.items() if BY_TOPIC[topic].enveloped
        }

    def holes(self) -> dict[str, str]:
        """Topic -> a sentence that names the missing decision; topics without a hole are left out."""
        return {topic: reader.hole for topic, reader in self.readers.items() if reader.hole}

    def garbage(self) -> dict[str, int]:
        """Topic -> offset of the last record that is no append of any version; topics without one are left out."""
        return {topic: reader.garbage for topic, reader in self.readers.items() if reader.garbage is not None}

    def fold(self, topic: str, offset: int, record: bytes | None) -> int:
        """Read one record; returns how many events were folded. Raises UnknownEventError naming topic and offset."""
        decision = self.readers[topic].read(offset, record)
        self._moved.add(topic)
        if decision is None:
            return 0
        events = decision.events
        self.on_decision(decision)
        if self._until_ms is not None and any(event.at > self._until_ms for event in events):
            return 0
        folded = False
        for projection, start in self._readers_of[topic]:
            if decision.offset < start:
                continue  # this store has folded it before; reading began earlier because of another store
            if self._limits is not None and decision.offset >= self._limits[projection.name].get(topic, 0):
                continue
            batch = self._batches[projection.name]
            projection.apply(decision, batch)
            projection.flush(batch)
            batch.end_of(decision)
            self._changed.add(projection.name)
            folded = True
        if not folded:
            return 0
        self.events += len(events)
        return len(events)

    def commit(self) -> None:
        """Write one WriteBatch for each projection whose topics moved: rows, positions and hash together."""
        if not self._moved:
            return
        for projection in self.projections:
            moved = self._moved.intersection(projection.topics)
            if not moved:
                continue
            batch = self._batches[projection.name]
            positions = dict(projection.store.positions)
            uncounted: dict[str, int] = dict(projection.store.notes.get(UNCOUNTED, {}))
            for topic in moved:
                state = self.readers[topic].state()
                if state.offset > positions.get(topic, Need()).offset or topic not in positions:
                    positions[topic] = state
                    uncounted[topic] = self.readers[topic].uncounted
            projection.store.commit(batch, positions, {**projection.notes(), UNCOUNTED: uncounted})
            if projection.name in self._changed:
                projection.version += 1
        self._moved.clear()
        self._changed.clear()
