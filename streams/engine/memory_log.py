"""The log in memory: each topic is a list of records, without a broker and without I/O.

The engine, plans, tests and the simulation write it and read it here. `LogReader` reads by the same counting rule as a
reader of Kafka.

`forget` trims a topic behind what its readers still need, so that a run of any length needs the memory of its state
alone. Offsets stay as they were. A log that is trimmed anyway need not be written: in one with `writes=False` a new
decision goes to its readers without encoding, and becomes a record only if it is still needed when later ones take its
place, or if somebody asks for the record. Encoding took a tenth of a backtest.

`counted(topic)` is what every reader sees: the records of the counted decisions, with every epoch set to 0. Two logs
are equal when these are equal, byte for byte.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Counter, Decision, canonical_records, whole_record
from coordinator.streams.log.envelope import Need, decode_event
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.ports import BlobReader
from coordinator.streams.topology import BY_TOPIC

DECISIONS_SHARED = 256
"""How many of a topic's last decisions its readers share, so that each is decoded once."""
NOT_WRITTEN = b""
"""In the place of the record of a decision that is at hand."""


class MemoryLog:
    """Topics as lists of records."""

    def __init__(
        self,
        topics: Mapping[str, Iterable[bytes]] | None = None,
        blobs: BlobReader | None = None,
        *,
        writes: bool = True,
    ) -> None:
        """`blobs`: what the records name, large tables and answers. `writes`: whether a new decision is a record at
        once.
        """
        self.blobs, self.writes = blobs, writes
        self.topics: dict[str, list[bytes]] = {
            name: list(records) for name, records in (topics or {}).items()
        }
        self.bases: dict[str, int] = {}
        """Topic -> the offset of the first record that is still held; 0 where the topic is missing here."""
        self._shared: dict[str, OrderedDict[int, Decision]] = {}

    def __getitem__(self, topic: str) -> list[bytes]:
        return self.topics.setdefault(topic, [])

    def append(self, topic: str, record: bytes) -> int:
        """Append a record. Gives its offset."""
        records = self[topic]
        records.append(record)
        return self.bases.get(topic, 0) + len(records) - 1

    def end(self, topic: str) -> int:
        """The offset after the last record."""
        return self.bases.get(topic, 0) + len(self.topics.get(topic, ()))

    def record(self, topic: str, offset: int) -> bytes:
        """The record at an offset. Raises IndexError for a record that is forgotten, or not there yet."""
        place = offset - self.bases.get(topic, 0)
        if place < 0:
            raise IndexError(f"{topic} offset {offset} is forgotten")
        record = self[topic][place]
        if record == NOT_WRITTEN and (decision := self.shared(topic).get(offset)) is not None:
            record = self[topic][place] = whole_record(decision)
        return record

    def forget(self, topic: str, before: int) -> None:
        """Drop the records before an offset."""
        base = self.bases.get(topic, 0)
        if before > base:
            del self[topic][: before - base]
            self.bases[topic] = before
            shared = self.shared(topic)
            for offset in [offset for offset in shared if offset < before]:
                del shared[offset]

    def copy(self, *topics: str) -> MemoryLog:
        """A log with these topics only; with all topics if none is named."""
        log = MemoryLog({name: self[name] for name in topics or self.topics}, self.blobs)
        log.bases = dict(self.bases)
        return log

    def decisions(self, topic: str, start: Need | None = None) -> list[Decision]:
        """Every counted decision from a position on. In a topic with many writers each event is a decision."""
        return [*self.walk(topic, start)]

    def walk(self, topic: str, start: Need | None = None) -> Iterator[Decision]:
        """`decisions` one after another, so that only one decoded decision is in memory at a time."""
        return iter(LogReader(self, topic, start).next, None)

    def events(self, topic: str) -> list[AnyEvent]:
        """Every counted event. In a topic with many writers a record that is no event raises msgspec.DecodeError."""
        if not BY_TOPIC[topic].enveloped:
            return [decode_event(record) for record in self[topic]]
        return [event for decision in self.decisions(topic) for event in decision.events]

    def counted(self, topic: str) -> list[list[bytes]]:
        """The records (parts) of each counted decision, as bytes, with every epoch set to 0."""
        return [canonical_records(decision) for decision in self.decisions(topic)]

    def pass_on(self, decision: Decision) -> None:
        """Append a decision that is no record yet, at the offset that it names."""
        topic, offset = decision.topic, decision.offset
        self[topic].append(NOT_WRITTEN)
        shared = self.shared(topic)
        shared[offset] = decision
        if (oldest := offset - DECISIONS_SHARED) in shared:
            self.record(topic, oldest)
            del shared[oldest]

    def share(self, decision: Decision) -> None:
        """Let the readers that are just before a decision take it without decoding its records."""
        topic = decision.topic
        shared = self.shared(topic)
        shared[decision.first_offset] = decision
        if len(shared) > DECISIONS_SHARED:
            oldest = next(iter(shared))  # a plain dict would search for it, past all that were dropped
            if oldest >= self.bases.get(topic, 0):
                self.record(topic, oldest)
            del shared[oldest]

    def shared(self, topic: str) -> OrderedDict[int, Decision]:
        """The topic's last decisions, by the offset of their first record, oldest first."""
        shared = self._shared.get(topic)
        if shared is None:
            shared = self._shared[topic] = OrderedDict()
        return shared


class LogReader:
    """Reads a topic from a position on, by the counting rule."""

    def __init__(self, log: MemoryLog, topic: str, start: Need | None = None) -> None:
        self.log, self.topic = log, topic
        self.counter: Counter | PlainCounter = counter_for(topic, start)
        self._shared = log.shared(topic)

    @property
    def at_end(self) -> bool:
        """Whether every record has been read. Asked of every reader at every instant, so `end` is computed here."""
        topic, log = self.topic, self.log
        return self.counter.next_offset >= len(log.topics.get(topic, ())) + log.bases.get(topic, 0)

    def next(self) -> Decision | None:
        """The next counted decision; None at the end."""
        while not self.at_end:
            decision = self.step()
            if decision is not None:
                return decision
        return None

    def step(self) -> Decision | None:
        """Read the next record, which must be there. Gives the decision that it completes, or None.

        If the owner or another reader has shared the decision that begins here, it is taken without decoding. So events
        that were just encoded are not decoded again.
        """
        counter = self.counter
        offset = counter.next_offset
        shared_decision = self._shared.get(offset)
        # The counter still decides whether the decision counts (its epoch and sequence number): sharing saves the
        # decoding alone, never the rule.
        if shared_decision is not None and counter.take(shared_decision):
            return shared_decision
        decision = counter.read(offset, self.log.record(self.topic, offset))
        if decision is not None:
            self.log.share(decision)
        return decision
