"""How a store keeps what its rows were: versions, marks and latecomers, as bytes. Pure.

Every row belongs to one topic, so its versions are offsets of that topic, and a past state is a cut per topic: the rows
as the decisions before it left them. No record of the log is folded again for that, and nothing is copied.

    r key                     version, value          the row now; a deleted one stays as a version without a value
    h len(key) key version    version, value          what the row was before this version replaced it
    v topic offset            latest at, at, hash     after this decision: the latest `at` so far, and the topic's part
                                                      of the state hash
    l topic class at offset   the decision's events   a decision that stands behind one with a later `at`

As of a time means: every decision whose events all have `at` <= it. These are a cut, but for the latecomers: decisions
that stand behind one with a later `at`. They are kept by how late they are (class k: less than 2**k ms), so that those
that matter to a moment, at <= moment < latest `at` before them, are found without looking at the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

ROW, UNDO, MARK, LATE = b"r", b"h", b"v", b"l"
_GONE = 1 << 63
_VERSION = struct.Struct(">Q")
_MARK = struct.Struct(">QQ32s")
_PLACE = struct.Struct(">BQQ")
_late_encoder = msgspec.msgpack.Encoder()
_late_decoder = msgspec.msgpack.Decoder(tuple[int, int, list[bytes]])
"""(latest at before it, first offset, bodies)"""


class Mark(msgspec.Struct, frozen=True):
    """How a topic stood after the decision at `offset`. Times are ms; `state_hash` is this topic's part of the sum."""

    offset: int
    latest_at: int
    at: int
    state_hash: int


def stamped(version: int, value: bytes | None) -> bytes:
    """A row as it is stored; None is a deleted one."""
    return _VERSION.pack(version if value is not None else version | _GONE) + (value or b"")


def version_of(stored: bytes) -> int:
    """The offset of the decision that wrote it."""
    return int(_VERSION.unpack_from(stored)[0]) & ~_GONE


def value_of(stored: bytes | None) -> bytes | None:
    """The row, or None where there is none (any more)."""
    return None if stored is None or stored[0] & 0x80 else stored[8:]


def undo_key(key: bytes, version: int) -> bytes:
    """Where the row that `version` replaced is kept."""
    return UNDO + len(key).to_bytes(2, "big") + key + _VERSION.pack(version)


def mark_key(topic: str, offset: int) -> bytes:
    """Where the mark of the decision at `offset` is kept."""
    return MARK + topic.encode() + b"\x00" + _VERSION.pack(offset)


def mark_value(latest_at: int, at: int, state_hash: int) -> bytes:
    """A mark as it is stored."""
    return _MARK.pack(latest_at, at, state_hash.to_bytes(32, "big"))


def late_key(topic: str, latest_at: int, at: int, offset: int) -> bytes:
    """Where a decision is kept that came `latest_at` - `at` ms late."""
    lateness_class = (latest_at - at).bit_length()
    return LATE + topic.encode() + b"\x00" + _PLACE.pack(lateness_class, at, offset)


def late_value(latest_at: int, decision: Decision) -> bytes:
    """What is needed to fold it again."""
    return _late_encoder.encode((latest_at, decision.first_offset, [bytes(body) for body in decision.bodies]))


def known_at(decision: Decision) -> int | None:
    """When the whole decision is known: the latest `at` of its events (ms, at least 0); None without events."""
    attributes = decision.__dict__
    if "known_at" not in attributes:  # asked by every projection
        attributes["known_at"] = max((max(event.at, 0) for event in decision.events), default=None)
    at: int | None = attributes["known_at"]
    return at


def find_before(database: Any, key: bytes, cut: int) -> bytes | None:
    """The row's value as the decisions before offset `cut` of its topic left it, or None."""
    stored: bytes | None = database.get(ROW + key)
    return value_at(database, key, stored, cut)


def value_at(database: Any, key: bytes, stored: bytes | None, cut: int) -> bytes | None:
    """As `find_before`, where the row as it is stored now is known."""
    if stored is None:
        return None
    if version_of(stored) >= cut:
        cursor = database.iter()
        first = undo_key(key, cut)
        cursor.seek(first)
        if not cursor.valid():
            return None
        version_key = cursor.key()
        if len(version_key) != len(first) or version_key[:-8] != first[:-8]:
            return None
        stored = cursor.value()
        if version_of(stored) >= cut:
            return None  # it was first written after the cut
    return value_of(stored)


def mark_before(database: Any, topic: str, cut: int) -> Mark | None:
    """The mark of the last decision before offset `cut`, or None where there is none."""
    if cut <= 0:
        return None
    cursor = database.iter()
    cursor.seek_for_prev(mark_key(topic, cut - 1))
    return _mark_at(cursor, topic)


def _mark_at(cursor: Any, topic: str) -> Mark | None:
    if not cursor.valid():
        return None
    prefix = mark_key(topic, 0)[:-8]
    name = cursor.key()
    if not name.startswith(prefix):
        return None
    latest_at, at, state_hash = _MARK.unpack(cursor.value())
    return Mark(int.from_bytes(name[-8:], "big"), latest_at, at, int.from_bytes(state_hash, "big"))


def cut_at(database: Any, topic: str, until_ms: int, end: int) -> int:
    """Where the longest run of decisions from the start ends that are all known at `until_ms`; at most `end`.

    The latest `at` never falls along a topic, so it is found by halving: log2 of the topic's length.
    """
    cursor = database.iter()

    def next_known(offset: int) -> int | None:
        """The first decision at or after `offset`, if it and all before it are known."""
        cursor.seek(mark_key(topic, offset))
        mark = _mark_at(cursor, topic)
        return mark.offset if mark is not None and mark.offset < end and mark.latest_at <= until_ms else None

    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        known_ms = next_known(middle)
        if known_ms is None:
            high = middle
        else:
            low = known_ms + 1
    cursor.seek(mark_key(topic, low))
    mark = _mark_at(cursor, topic)
    # When there is no decision left, what stands behind the last one is read too: claims, and what does not count.
    return end if mark is None or mark.offset >= end else low


def latecomers(database: Any, topic: str, until_ms: int, end: int, limit: int) -> list[Decision]:
    """The decisions before `end`, in order, that are known at `until_ms` but stand behind one that is not.

    At most `limit` + 1 of them: more than `limit` says that there are too many.
    """
    prefix = LATE + topic.encode() + b"\x00"
    late: list[Decision] = []
    cursor = database.iter()
    cursor.seek(prefix)
    while cursor.valid() and cursor.key().startswith(prefix):
        lateness_class = _PLACE.unpack(cursor.key()[len(prefix) :])[0]
        for decision in _of_class(cursor, prefix, lateness_class, until_ms):
            if decision.offset < end:
                late.append(decision)
                if len(late) > limit:
                    return late
        cursor.seek(prefix + _PLACE.pack(lateness_class + 1, 0, 0))
    return sorted(late, key=lambda one: one.offset)


def late_at(database: Any, topic: str, offset: int) -> Decision | None:
    """The latecomer that ended at this offset, or None where there is none."""
    mark, before = mark_before(database, topic, offset + 1), mark_before(database, topic, offset)
    if mark is None or before is None or mark.offset != offset or mark.at >= before.latest_at:
        return None
    raw = database.get(late_key(topic, before.latest_at, mark.at, offset))
    return _late_decision(topic, offset, raw)[1]


def _late_decision(topic: str, offset: int, raw: bytes) -> tuple[int, Decision]:
    latest_at, first_offset, bodies = _late_decoder.decode(raw)
    parts = tuple(msgspec.Raw(body) for body in bodies)
    return latest_at, Decision(topic, first_offset, offset, 0, Need(first_offset), {}, {}, parts)


def _of_class(cursor: Any, prefix: bytes, lateness_class: int, until_ms: int) -> Iterator[Decision]:
    topic = prefix[1:-1].decode()
    earliest = max(0, until_ms - (1 << lateness_class) + 1)
    cursor.seek(prefix + _PLACE.pack(lateness_class, earliest, 0))
    while cursor.valid() and cursor.key().startswith(prefix):
        found_class, at, offset = _PLACE.unpack(cursor.key()[len(prefix) :])
        if found_class != lateness_class or at > until_ms:
            return
        latest_at, decision = _late_decision(topic, offset, cursor.value())
        if latest_at > until_ms:
            yield decision
        cursor.next()
