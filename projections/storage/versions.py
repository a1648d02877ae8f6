"""How a store holds the earlier versions of its rows: versions, marks and latecomers, as bytes. Pure.

Every row belongs to one topic, and a row's version is the offset of the decision that wrote it. A past state is a cut
per topic: the rows as the decisions before the cut left them. To read it, no record of the log is folded again, and
nothing is copied.

    r key                     version, value          the row now; a deleted row stays as a version without a value
    h len(key) key version    version, value          the row before this version replaced it
    v topic offset            latest at, at, hash     the mark of a decision: the latest `at` up to it, its own, and
                                                      the topic's part of the state hash after it
    l topic class at offset   the decision's events   a latecomer: a decision after one with a later `at`

"As of a time" means: all decisions whose events all have `at` <= that time. These are all decisions before some cut,
plus latecomers. Latecomers are stored by how late they are (class k: less than 2**k ms). So those that matter at a
moment (`at` <= moment < latest `at` before them) are found without reading the others.

`past_cut.py` deletes what is older than a horizon. Of rows that explanations name, it leaves each version's offset
without the row.
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
    """A topic's state after the decision at `offset`.

    `at` is the latest time of the decision's own events, `latest_at` that of all events up to it, in ms. `state_hash`
    is the topic's part of the state hash.
    """

    offset: int
    latest_at: int
    at: int
    state_hash: int


def stamped(version: int, value: bytes | None) -> bytes:
    """A row as it is stored; None is a deleted row."""
    return _VERSION.pack(version if value is not None else version | _GONE) + (value or b"")


def version_of(stored: bytes) -> int:
    """The offset of the decision that wrote a stored row."""
    return int(_VERSION.unpack_from(stored)[0]) & ~_GONE


def value_of(stored: bytes | None) -> bytes | None:
    """The row in what is stored; None if it was deleted or never existed."""
    return None if stored is None or stored[0] & 0x80 else stored[8:]


def undo_key(key: bytes, version: int) -> bytes:
    """The key of the row that `version` replaced."""
    return UNDO + len(key).to_bytes(2, "big") + key + _VERSION.pack(version)


def place_in_undo_key(name: bytes) -> tuple[bytes, int]:
    """(row's key, version) of such a key."""
    return name[3:-8], int.from_bytes(name[-8:], "big")


def is_deleted_since(stored: bytes | None, version: int) -> bool:
    """Whether a stored row was deleted by this version, and not written again."""
    return stored is not None and value_of(stored) is None and version_of(stored) == version


def mark_key(topic: str, offset: int) -> bytes:
    """The key of the mark of the decision at `offset`."""
    return MARK + topic.encode() + b"\x00" + _VERSION.pack(offset)


def mark_value(latest_at: int, at: int, state_hash: int) -> bytes:
    """A mark as it is stored."""
    return _MARK.pack(latest_at, at, state_hash.to_bytes(32, "big"))


def late_key(topic: str, latest_at: int, at: int, offset: int) -> bytes:
    """The key of a decision that is `latest_at` - `at` ms late."""
    lateness_class = (latest_at - at).bit_length()
    return LATE + topic.encode() + b"\x00" + _PLACE.pack(lateness_class, at, offset)


def place_in_late_key(name: bytes) -> tuple[str, int]:
    """(topic, offset) of such a key."""
    topic, _, place = name[1:].partition(b"\x00")
    return topic.decode(), int(_PLACE.unpack(place)[2])


def late_value(latest_at: int, decision: Decision) -> bytes:
    """What is needed to fold a latecomer again."""
    return _late_encoder.encode((latest_at, decision.first_offset, [bytes(body) for body in decision.bodies]))


def known_at(decision: Decision) -> int | None:
    """When the whole decision is known: the latest `at` of its events (ms, at least 0); None if it has no events."""
    attributes = decision.__dict__
    if "known_at" not in attributes:  # computed once, though every projection needs it
        attributes["known_at"] = max((max(event.at, 0) for event in decision.events), default=None)
    at: int | None = attributes["known_at"]
    return at


def find_before(database: Any, key: bytes, cut: int) -> bytes | None:
    """The row as the decisions before offset `cut` of its topic left it, or None."""
    stored: bytes | None = database.get(ROW + key)
    return value_at(database, key, stored, cut)


def value_at(database: Any, key: bytes, stored: bytes | None, cut: int) -> bytes | None:
    """As `find_before`, for a caller that has read the row's newest version, `stored`."""
    return value_of(stored_at(database, key, stored, cut))


def stored_at(database: Any, key: bytes, stored: bytes | None, cut: int) -> bytes | None:
    """As `value_at`, with its version; None if the row was first written after the cut."""
    if stored is None or version_of(stored) < cut:
        return stored
    # The oldest version from the cut on replaced the row that we want.
    cursor = database.iter()
    first = undo_key(key, cut)
    cursor.seek(first)
    if not cursor.valid():
        return None
    version_key = cursor.key()
    if len(version_key) != len(first) or version_key[:-8] != first[:-8]:
        return None
    before: bytes = cursor.value()
    return before if version_of(before) < cut else None


def versions_of(database: Any, key: bytes) -> list[int]:
    """The offsets of the decisions that wrote a row, oldest first; empty if there never was one."""
    stored: bytes | None = database.get(ROW + key)
    if stored is None:
        return []
    offsets = []
    cursor = database.iter()
    first = undo_key(key, 0)
    cursor.seek(first)
    while cursor.valid():
        name = cursor.key()
        if len(name) != len(first) or name[:-8] != first[:-8]:
            break
        offsets.append(version_of(cursor.value()))
        cursor.next()
    return [*offsets, version_of(stored)]


def mark_before(database: Any, topic: str, cut: int) -> Mark | None:
    """The mark of the last decision before offset `cut`, or None if there is none."""
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
    """The largest cut, at most `end`, before which all decisions are known at `until_ms`.

    Along a topic the latest `at` never decreases, so a binary search finds the cut in log2(topic length) steps.
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
    # After the last decision there may be records that are no decisions, such as claims: the cut is after them, too.
    return end if mark is None or mark.offset >= end else low


def latecomers(database: Any, topic: str, until_ms: int, end: int, limit: int) -> list[Decision]:
    """The decisions before `end`, in order, that are known at `until_ms`, but come after a decision that is not.

    At most `limit` + 1 of them: a result longer than `limit` means that there are too many.
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
    return sorted(late, key=lambda decision: decision.offset)


def late_at(database: Any, topic: str, offset: int) -> Decision | None:
    """The latecomer whose last part is at this offset, or None if there is none."""
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
    """The latecomers of one class that matter at `until_ms`: known then, after a decision that was not."""
    topic = prefix[1:-1].decode()
    earliest = max(0, until_ms - (1 << lateness_class) + 1)
    cursor.seek(prefix + _PLACE.pack(lateness_class, earliest, 0))
    while cursor.valid() and cursor.key().startswith(prefix):
        class_of_row, at, offset = _PLACE.unpack(cursor.key()[len(prefix) :])
        if class_of_row != lateness_class or at > until_ms:
            return
        latest_at, decision = _late_decision(topic, offset, cursor.value())
        if latest_at > until_ms:
            yield decision
        cursor.next()
