"""Cuts the earlier versions out of one store: those that no question from the horizon on can read. In small steps.

The horizon is written into the store first, and versions are deleted only afterwards. So whoever finds no horizon
finds all versions, also after a crash in the middle; the next process goes on with the cut. Rows as they are now stay,
so the state hash of a store does not change, and neither do the marks of the past from the horizon on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from rocksdict import WriteBatch

from coordinator.projections.storage.database import Database, StoreDamagedError
from coordinator.projections.storage.versions import (
    LATE,
    ROW,
    UNDO,
    cut_at,
    is_deleted_since,
    mark_before,
    mark_key,
    place_in_late_key,
    place_in_undo_key,
    stamped,
    undo_key,
    version_of,
)

KEYS_PER_STEP = 500
"""How many keys one step looks at: a few milliseconds, in which the report worker answers nobody."""
_HORIZON = b"p"
_STAMP_BYTES = 8
_DIGEST_BYTES = 32


class Horizon(msgspec.Struct, frozen=True, array_like=True):
    """From where on a store holds the past. `cuts`: topic -> the first offset at which a past state may end."""

    from_ms: int
    cuts: dict[str, int]
    is_cut: bool = False
    """Whether all that is before it was deleted."""


def read_horizon(database: Database) -> Horizon | None:
    """The horizon of a store; None if it holds its whole past. Raises StoreDamagedError."""
    raw = database.get(_HORIZON)
    if raw is None:
        return None
    digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    try:
        if hashlib.sha256(body).digest() == digest:
            return msgspec.msgpack.decode(body, type=Horizon)
    except msgspec.DecodeError:
        pass
    raise StoreDamagedError(f"{database.path}: the record of its horizon was altered")


def put_horizon(write: WriteBatch, horizon: Horizon) -> None:
    """Add the record of a store's horizon to what is written."""
    body = msgspec.msgpack.encode(horizon)
    write.put(_HORIZON, hashlib.sha256(body).digest() + body)


def horizon_at(database: Database, from_ms: int, ends: Mapping[str, int]) -> Horizon:
    """The horizon of a store for questions about `from_ms` or later. `ends`: topic -> where the store has folded it.

    A topic is cut behind the last decision that, like all before it, was known by then: records behind it that are no
    decisions belong to the past that stays.
    """
    cuts = {}
    for topic, end in ends.items():
        mark = mark_before(database, topic, cut_at(database, topic, from_ms, end))
        cuts[topic] = 0 if mark is None else mark.offset + 1
    return Horizon(from_ms, cuts)


class Cutting:
    """One cut of one store. `step` until it returns False; a new object begins from the front, and finds less to do.

    `is_explained`: of a row's key, whether explanations name the decisions that wrote the row. Then the offsets of
    these decisions stay, and only what the row held before is deleted.
    """

    def __init__(
        self,
        database: Database,
        horizon: Horizon,
        owner: Callable[[bytes], str],
        is_explained: Callable[[bytes], bool],
    ) -> None:
        self.deleted = 0
        """How many versions, marks and latecomers were deleted until now."""
        self._database = database
        self._horizon = horizon
        self._owner = owner
        self._is_explained = is_explained
        self._spans = [_Span(UNDO, _after(UNDO), self._undo), _Span(LATE, _after(LATE), self._late)]
        for topic, cut in horizon.cuts.items():
            if cut > 0:  # the last mark before the cut stays: it has the hash and the time of the state there
                self._spans.append(_Span(mark_key(topic, 0), mark_key(topic, cut - 1), self._mark))
        self._next = self._spans[0].first

    def step(self) -> bool:
        """Look at the next keys. Returns False once the horizon says that the cut is complete."""
        write = WriteBatch(raw_mode=True)
        span = self._spans[0]
        self._next = self._cut(span, write)
        if not write.is_empty():
            self._database.write(write)
        if self._next >= span.end:
            self._spans.pop(0)
            if not self._spans:
                self._end()
                return False
            self._next = self._spans[0].first
        return True

    def _end(self) -> None:
        """Deletions give space back once they are in files, which are compacted then (`store.DELETIONS`)."""
        self._database.flush()
        write = WriteBatch(raw_mode=True)
        put_horizon(write, msgspec.structs.replace(self._horizon, is_cut=True))
        self._database.write(write)

    def _cut(self, span: _Span, write: WriteBatch) -> bytes:
        """Judge the next keys of a span; returns the key to go on with."""
        cursor = self._database.iter()
        cursor.seek(self._next)
        judge = span.judge
        for _ in range(KEYS_PER_STEP):
            if not cursor.valid() or cursor.key() >= span.end:
                return span.end
            beyond = judge(cursor, write)
            if beyond is None:
                cursor.next()
            else:
                cursor.seek(beyond)
        return cursor.key() if cursor.valid() else span.end

    def _undo(self, cursor: Any, write: WriteBatch) -> bytes | None:
        key = cursor.key()
        row_key, version = place_in_undo_key(key)
        if version >= self._horizon.cuts[self._owner(row_key)]:
            return (
                undo_key(row_key, version)[:-_STAMP_BYTES] + b"\xff" * _STAMP_BYTES
            )  # the next row's versions
        if self._is_explained(row_key):
            if len(before := cursor.value()) > _STAMP_BYTES:
                write.put(key, stamped(version_of(before), None))
                self.deleted += 1
            return None
        write.delete(key)
        self.deleted += 1
        if is_deleted_since(self._database.get(ROW + row_key), version):
            write.delete(ROW + row_key)  # it stood there for its earlier versions alone
        return None

    def _late(self, cursor: Any, write: WriteBatch) -> bytes | None:
        topic, offset = place_in_late_key(cursor.key())
        if offset < self._horizon.cuts[topic]:
            write.delete(cursor.key())
            self.deleted += 1
        return None

    def _mark(self, cursor: Any, write: WriteBatch) -> bytes | None:
        write.delete(cursor.key())
        self.deleted += 1
        return None


class _Span(NamedTuple):
    """Keys from `first` up to `end`, without it. `judge` deletes, or not, where a cursor is; where to seek, or None."""

    first: bytes
    end: bytes
    judge: Callable[[Any, WriteBatch], bytes | None]


def _after(kind: bytes) -> bytes:
    return bytes((kind[0] + 1,))
