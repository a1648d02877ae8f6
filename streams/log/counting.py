"""Which appends count: the one rule that every reader of our topics applies.

An append counts if its epoch is the topic's current one and it is the next part of the current
decision, or part 1 of the last counted `seq` + 1. A claim counts if its epoch is exactly the next;
it drops what is incomplete. A decision counts once its last part is there. Nothing else is compared:
so a zombie's late append, a repeated send and a hole after a failed send are all seen alike by all.
A topic's birth record is passed over, and so is a recorded state (`recorded.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.birth import is_birth
from coordinator.streams.log.envelope import (
    Append,
    Need,
    Position,
    decode_append,
    decode_events,
    record_named,
)
from coordinator.streams.log.errors import UnknownEventError


class Decision:
    """A counted decision: its events in order, where it stands, and what it had decided."""

    __slots__ = ("__dict__", "before", "bodies", "first_offset", "need", "offset", "seq", "topic", "upto")

    def __init__(
        self,
        topic: str,
        first_offset: int,
        offset: int,
        seq: int,
        before: Need,
        upto: Mapping[str, Position],
        need: Mapping[str, Need],
        bodies: tuple[msgspec.Raw, ...],
    ) -> None:
        self.topic = topic
        self.first_offset = first_offset
        self.offset = offset
        self.seq = seq
        self.before = before
        self.upto = upto
        self.need = need
        self.bodies = bodies

    @cached_property
    def events(self) -> list[AnyEvent]:
        """Decoded on first use. Raises UnknownEventError naming topic and offset."""
        try:
            if len(self.bodies) == 1:
                return decode_events(self.bodies[0])
            return [event for body in self.bodies for event in decode_events(body)]
        except UnknownEventError as error:
            message = f"{self.topic} offset {self.first_offset}..{self.offset}: {error}"
            raise UnknownEventError(message) from error

    def after(self) -> Need:
        """The reader's state just after this decision."""
        return Need(self.offset + 1, self.before.epoch, self.seq)


class Counter:
    """The counting rule over one topic, from the start or from a `Need`.

    `read` takes records in the order of the log and gives the decision that a record completed, if any.
    The whole state is `epoch, seq, pending`; a projection stores it with its rows.
    """

    def __init__(self, topic: str, start: Need | None = None) -> None:
        start = start or Need()
        self.topic = topic
        self.next_offset = start.offset
        self.epoch = start.epoch
        self.seq = start.seq
        self.uncounted = 0
        self.claims = 0
        self.hole: tuple[int, int] | None = None
        """(offset, seq) of the first append of the current owner that skips a number: nothing it writes counts any
        more. The next claim ends it; an owner whose send failed leaves one behind for that long.
        """
        self.garbage: int | None = None
        """The offset of the last record that no version could have written."""
        self._parts: list[msgspec.Raw] = []
        self._parts_first = 0
        self._parts_of = 0

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The decision completed by this record, or None. Raises UnknownEventError (newer envelope)."""
        self.next_offset = offset + 1
        with record_named(self.topic, offset):
            if is_birth(offset, record):
                return None
            append = decode_append(record)
        if append is None:
            self.uncounted += 1
            self.garbage = offset
            return None
        if append.state is not None:
            return None
        if append.claim:
            self._claim(append)
            return None
        return self._count(offset, append)

    def _claim(self, append: Append) -> None:
        if append.epoch == self.epoch + 1:
            self.epoch = append.epoch
            self.claims += 1
            self.hole = None
            self._parts.clear()
        else:
            self.uncounted += 1

    def _count(self, offset: int, append: Append) -> Decision | None:
        k, n = append.part
        expected = len(self._parts) + 1
        if (
            append.epoch != self.epoch
            or append.seq != self.seq + 1
            or k != expected
            or (self._parts and n != self._parts_of)
        ):
            self.uncounted += 1
            if self.hole is None and append.epoch == self.epoch and append.seq > self.seq + 1:
                self.hole = (offset, append.seq)
            return None
        if k == 1:
            self._parts_first, self._parts_of = offset, n
        if k < n:
            self._parts.append(append.events)
            return None
        bodies = (*self._parts, append.events)
        self._parts.clear()
        before = Need(self._parts_first, self.epoch, self.seq)
        self.seq = append.seq
        return Decision(
            self.topic, self._parts_first, offset, append.seq, before, append.upto, append.need, bodies
        )

    def state(self) -> Need:
        """Where this reader stands, where it may be resumed: before the first part of what is incomplete."""
        return Need(self._parts_first if self._parts else self.next_offset, self.epoch, self.seq)


class TailCounter:
    """The counting rule over the end of a topic, of which the beginning is not read.

    The newest epoch of a claim or an append is the current one: nobody writes under an epoch before its claim counted.
    Numbers begin with the first part 1 of it. What a failed send left behind before the first record read cannot be
    told: it is counted until the next claim, so nothing may be decided by this.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.epoch = 0
        """The newest epoch seen, 0 before the first."""
        self._counter: Counter | None = None

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The decision completed by this record, or None. Raises UnknownEventError (newer envelope)."""
        with record_named(self.topic, offset):
            append = None if is_birth(offset, record) else decode_append(record)
        if append is None or append.epoch < self.epoch:
            return None
        if append.epoch > self.epoch:
            self.epoch, self._counter = append.epoch, None
        if append.claim or append.state is not None:
            return None
        if self._counter is None and append.part[0] == 1:
            self._counter = Counter(self.topic, Need(offset, append.epoch, append.seq - 1))
        return None if self._counter is None else self._counter.read(offset, record)
