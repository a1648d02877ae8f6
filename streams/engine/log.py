"""The log in memory: topics as lists of records, where an offset is a place in a list. No broker, no I/O.

A log that is kept holds every record. Another is trimmed behind what its readers still need (`forget`), so that a run
of any length takes the memory of its state alone; offsets go on as they would.

`counted(topic)` is what every reader sees: the counted decisions' records with epochs set to 0. Two logs are equal
when these are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Counter, Decision, canonical_records
from coordinator.streams.log.envelope import Need, decode_event
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.topology import BY_TOPIC

DECISIONS_SHARED = 16
"""How many of a topic's last decisions are handed to its readers as they were made or read."""


class MemoryLog:
    """Topics as lists of records."""

    def __init__(self, topics: Mapping[str, Iterable[bytes]] | None = None) -> None:
        self.topics: dict[str, list[bytes]] = {
            name: list(records) for name, records in (topics or {}).items()
        }
        self.bases: dict[str, int] = {}
        """Topic -> the offset of the first record that is held."""
        self._shared: dict[str, dict[int, Decision]] = {}

    def __getitem__(self, topic: str) -> list[bytes]:
        return self.topics.setdefault(topic, [])

    def append(self, topic: str, record: bytes) -> int:
        """Put a record at the end; gives its offset."""
        self[topic].append(record)
        return self.end(topic) - 1

    def end(self, topic: str) -> int:
        """The offset after the last record."""
        return self.bases.get(topic, 0) + len(self.topics.get(topic, ()))

    def record(self, topic: str, offset: int) -> bytes:
        """The record at an offset. Raises IndexError for one that is forgotten, or not there yet."""
        place = offset - self.bases.get(topic, 0)
        if place < 0:
            raise IndexError(f"{topic} offset {offset} is forgotten")
        return self[topic][place]

    def forget(self, topic: str, before: int) -> None:
        """Drop the records before an offset."""
        base = self.bases.get(topic, 0)
        if before > base:
            del self[topic][: before - base]
            self.bases[topic] = before

    def copy(self, *topics: str) -> MemoryLog:
        """A log with these topics only (all when none is named)."""
        log = MemoryLog({name: self[name] for name in topics or self.topics})
        log.bases = dict(self.bases)
        return log

    def decisions(self, topic: str, start: Need | None = None) -> list[Decision]:
        """Every counted decision from a position on; of a topic of many writers each event is one."""
        return [*self.walk(topic, start)]

    def walk(self, topic: str, start: Need | None = None) -> Iterator[Decision]:
        """`decisions`, one after the other: what was decoded of one is not held behind it."""
        return iter(LogReader(self, topic, start).next, None)

    def events(self, topic: str) -> list[AnyEvent]:
        """Every counted event. Of a topic of many writers raises msgspec.DecodeError for what is none."""
        if not BY_TOPIC[topic].enveloped:
            return [decode_event(record) for record in self[topic]]
        return [event for one in self.decisions(topic) for event in one.events]

    def counted(self, topic: str) -> list[list[bytes]]:
        """Per counted decision its records (parts), as bytes, with every epoch 0."""
        return [canonical_records(one) for one in self.decisions(topic)]

    def share(self, decision: Decision) -> None:
        """Let readers at the place before it take it as it is."""
        shared = self.shared(decision.topic)
        shared[decision.first_offset] = decision
        if len(shared) > DECISIONS_SHARED:
            del shared[next(iter(shared))]

    def shared(self, topic: str) -> dict[int, Decision]:
        """The topic's last decisions, by the offset of their first record."""
        return self._shared.setdefault(topic, {})


class LogReader:
    """A place in a topic, by the counting rule."""

    def __init__(self, log: MemoryLog, topic: str, start: Need | None = None) -> None:
        self.log, self.topic = log, topic
        self.counter: Counter | PlainCounter = counter_for(topic, start)
        self._shared = log.shared(topic)

    @property
    def at_end(self) -> bool:
        """Is everything read?"""
        return self.counter.next_offset >= self.log.end(self.topic)

    def next(self) -> Decision | None:
        """The next counted decision; None at the end."""
        counter, topic, topics, bases = self.counter, self.topic, self.log.topics, self.log.bases
        # Asked for every reader at every instant, so the log's end is looked up here and not by `end`.
        while counter.next_offset < len(topics.get(topic, ())) + bases.get(topic, 0):
            decision = self.step()
            if decision is not None:
                return decision
        return None

    def step(self) -> Decision | None:
        """Read one record, which is there: the decision that it completes, if any.

        What its owner handed on, or another reader has read, from the very same place is taken as it is: no events are
        decoded that were just made.
        """
        counter = self.counter
        offset = counter.next_offset
        known = self._shared.get(offset)
        if known is not None and isinstance(counter, Counter) and counter.take(known):
            return known
        decision = counter.read(offset, self.log.record(self.topic, offset))
        if decision is not None:
            self.log.share(decision)
        return decision
