"""Which appends count: the rule that every reader of our topics applies.

An append counts if its epoch is the topic's current one, and if it is the next part of the current decision or part 1
of the decision after the last counted `seq`. A claim counts if its epoch is the current one + 1; it drops an incomplete
decision. A decision counts once its last part is there. Nothing else is compared. So every reader treats a late append
of a former owner, a repeated send and a hole after a failed send in the same way. A topic's birth record and recorded
states (`recorded_state.py`) are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.birth import is_birth
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    Position,
    decode_append,
    decode_events,
    encode_append,
    encode_events,
    encode_parts,
    may_hold,
    record_named,
)
from coordinator.streams.log.errors import UnknownEventError


class Decision:
    """A counted decision: its events in order, its place in the topic, and what it had decided.

    `first_offset` and `offset` are the offsets of its first and last part, `before` is the reader's state before it.
    """

    __slots__ = (
        "__dict__",  # for who computes something of a decision once (projections/storage/versions.py)
        "_bodies",
        "_events",
        "before",
        "first_offset",
        "need",
        "offset",
        "seq",
        "topic",
        "upto",
    )

    def __init__(
        self,
        topic: str,
        first_offset: int,
        offset: int,
        seq: int,
        before: Need,
        upto: Mapping[str, Position],
        need: Mapping[str, Need],
        bodies: tuple[msgspec.Raw, ...] | None,
        events: list[AnyEvent] | None = None,
    ) -> None:
        """Either `bodies` or `events` is enough; the other is computed from it at its first use."""
        self.topic = topic
        self.first_offset = first_offset
        self.offset = offset
        self.seq = seq
        self.before = before
        self.upto = upto
        self.need = need
        self._bodies = bodies
        self._events = events

    @property
    def bodies(self) -> tuple[msgspec.Raw, ...]:
        """The JSON of the events, one body for each part; of a decision that was never written a single one."""
        if self._bodies is None:
            self._bodies = (msgspec.Raw(encode_events(self.events)[1]),)
        return self._bodies

    @property
    def is_decoded(self) -> bool:
        """Are the events at hand without decoding?"""
        return self._events is not None

    @property
    def events(self) -> list[AnyEvent]:
        """The events, decoded at the first use. Raises UnknownEventError naming topic and offset."""
        if self._events is None:
            self._events = self._decoded()
        return self._events

    def _decoded(self) -> list[AnyEvent]:
        try:
            if len(self.bodies) == 1:
                return decode_events(self.bodies[0])
            return [event for body in self.bodies for event in decode_events(body)]
        except UnknownEventError as error:
            message = f"{self.topic} offset {self.first_offset}..{self.offset}: {error}"
            raise UnknownEventError(message) from error

    def may_hold(self, *kinds: str) -> bool:
        """Whether an event of one of these kinds may be in it, without decoding."""
        if self._bodies is None:
            return any(type(event).__name__ in kinds for event in self.events)
        return any(may_hold(bytes(body), *kinds) for body in self._bodies)

    def with_events(self, events: list[AnyEvent]) -> Decision:
        """The same decision with these events instead of its own."""
        return Decision(
            *(self.topic, self.first_offset, self.offset, self.seq, self.before, self.upto, self.need),
            self._bodies,
            events,
        )

    def after(self) -> Need:
        """The reader's state just after this decision."""
        return Need(self.offset + 1, self.before.epoch, self.seq)


def whole_record(decision: Decision) -> bytes:
    """The record of a decision that was never written, in one part whatever its size: not for Kafka."""
    upto, need = dict(decision.upto), dict(decision.need)
    (record,) = encode_parts(
        list(map(bytes, decision.bodies)), epoch=decision.before.epoch, seq=decision.seq, upto=upto, need=need
    )
    return record


def canonical_records(decision: Decision) -> list[bytes]:
    """The appends of a decision as recorded, with every epoch set to 0, also inside `need`. They show what was
    decided, not who wrote it.
    """
    need = {source: Need(place.offset, 0, place.seq) for source, place in decision.need.items()}
    upto = dict(decision.upto)
    count = len(decision.bodies)
    return [
        encode_append(
            Append(
                e=ENVELOPE_VERSION,
                epoch=0,
                seq=decision.seq,
                part=(number, count),
                upto=upto,
                need=need,
                events=body,
            )
        )
        for number, body in enumerate(decision.bodies, start=1)
    ]


class Counter:
    """The counting rule over one topic, from its start or from a `Need`.

    `read` takes the records in order, and returns the decision that a record completes. A projection stores the
    reader's position, as a `Need`, with its rows.
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
        """(offset, seq) of the first append of the current owner that skips a number. From there on nothing that this
        owner writes counts, until the next claim. An owner whose send failed leaves such a hole.
        """
        self.garbage: int | None = None
        """The offset of the last record that is no append of any version."""
        self._parts: list[msgspec.Raw] = []
        self._parts_first = 0
        self._parts_of = 0

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The decision that this record completes, or None. Raises UnknownEventError for a newer envelope."""
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

    def take(self, decision: Decision) -> bool:
        """Skip a decision that was counted from exactly this counter's position, without reading its records. Returns
        False, and skips nothing, if the counter is at another position.
        """
        before = decision.before
        if (
            self._parts
            or before.offset != self.next_offset
            or before.epoch != self.epoch
            or before.seq != self.seq
        ):
            return False
        self.next_offset, self.seq = decision.offset + 1, decision.seq
        return True

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
        """Where another reader can resume: before the first part of an incomplete decision."""
        return Need(self._parts_first if self._parts else self.next_offset, self.epoch, self.seq)


class TailCounter:
    """The counting rule over the end of a topic, without its beginning.

    The newest epoch of a claim or an append is the current one, because nobody writes under an epoch before its claim
    counts. Counting begins at the first part 1 under that epoch. Appends after a hole that is before the first record
    read are counted here, though they do not count, until the next claim. So nothing may be decided from this.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.epoch = 0
        """The newest epoch seen; 0 before the first."""
        self._counter: Counter | None = None

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The decision that this record completes, or None. Raises UnknownEventError for a newer envelope."""
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
