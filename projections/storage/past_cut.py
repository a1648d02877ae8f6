"""Cuts the past out of one store, in small steps: the earlier versions that no question from the horizon on can read,
and the rows of now that are wholly before the horizon (`Projection.leaving`).

The horizon is written into the store first, and versions and rows are deleted only afterwards. So whoever finds no
horizon finds everything, also after a crash in the middle; the next process continues the cut. Rows that leave stay
in the state hash: their sum is written with the deletion (`Horizon.hash_of_left`). So the hash of a store does not
change, and neither do the marks of the past from the horizon on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
from rocksdict import WriteBatch

from coordinator.projections.storage.changes import MODULUS, row_hash
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
    value_of,
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
    hash_of_left: str = "0" * 64
    """The sum of the hashes of all rows that left the store, by this cut and by earlier ones."""


class Rows(Protocol):
    """What a cut must know of a store's rows; `Projection` says what each means."""

    leaving: ClassVar[tuple[bytes, ...]]

    def owner(self, row_key: bytes) -> str: ...
    def is_explained(self, row_key: bytes) -> bool: ...
    def is_over(self, row_key: bytes, row: bytes, horizon: Horizon) -> bool: ...


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


def horizon_at(
    database: Database, from_ms: int, ends: Mapping[str, int], before: Horizon | None = None
) -> Horizon:
    """The horizon of a store for questions about `from_ms` or later. `ends`: topic -> where the store has folded it.
    `before`: the store's horizon until now.

    A topic is cut behind the last decision that, like all before it, was known by then: records behind it that are no
    decisions belong to the past that stays.
    """
    cuts = {}
    for topic, end in ends.items():
        mark = mark_before(database, topic, cut_at(database, topic, from_ms, end))
        cuts[topic] = 0 if mark is None else mark.offset + 1
    if before is None:
        return Horizon(from_ms, cuts)
    return Horizon(from_ms, cuts, hash_of_left=before.hash_of_left)


class Cutting:
    """One cut of one store. `step` until it returns False; a new object begins from the front, and finds less to do.

    For a row that explanations refer to (`is_explained`) the offsets of its decisions stay: only its former contents
    are deleted, until the row itself is removed.
    """

    def __init__(self, database: Database, horizon: Horizon, rows: Rows) -> None:
        self.deleted = 0
        """How many versions, rows, marks and latecomers were deleted until now."""
        self.horizon = horizon
        """As the store holds it."""
        self._database = database
        self._rows = rows
        self._spans = [_Span(UNDO, _after(UNDO), self._undo), _Span(LATE, _after(LATE), self._late)]
        self._spans += [_Span(ROW + kind, _after(ROW + kind), self._row) for kind in rows.leaving]
        for topic, cut in horizon.cuts.items():
            if cut > 0:  # the last mark before the cut stays: it has the hash and the time of the state there
                self._spans.append(_Span(mark_key(topic, 0), mark_key(topic, cut - 1), self._mark))
        self._next = self._spans[0].first
        self._hash_of_left = int(horizon.hash_of_left, 16)

    def step(self) -> bool:
        """Look at the next keys. Returns False once the horizon says that the cut is complete."""
        write = WriteBatch(raw_mode=True)
        span = self._spans[0]
        hash_before = self._hash_of_left
        self._next = self._cut(span, write)
        if self._hash_of_left != hash_before:
            self._put_horizon(write, is_cut=False)
        if not write.is_empty():
            self._database.write(write)
        if self._next >= span.end:
            self._spans.pop(0)
            if not self._spans:
                self._end()
                return False
            self._next = self._spans[0].first
        return True

    def _put_horizon(self, write: WriteBatch, *, is_cut: bool) -> None:
        self.horizon = msgspec.structs.replace(
            self.horizon, is_cut=is_cut, hash_of_left=f"{self._hash_of_left:064x}"
        )
        put_horizon(write, self.horizon)

    def _end(self) -> None:
        """Deletions give space back once they are in files, which are compacted then (`store.DELETIONS`). Nothing waits
        for the disk here: it may take seconds, and the API answers on the same event loop.
        """
        self._database.flush(wait=False)
        write = WriteBatch(raw_mode=True)
        self._put_horizon(write, is_cut=True)
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
        if version >= self.horizon.cuts[self._rows.owner(row_key)]:
            return (
                undo_key(row_key, version)[:-_STAMP_BYTES] + b"\xff" * _STAMP_BYTES
            )  # the next row's versions
        if self._rows.is_explained(row_key):
            if len(before := cursor.value()) > _STAMP_BYTES:
                write.put(key, stamped(version_of(before), None))
                self.deleted += 1
            return None
        write.delete(key)
        self.deleted += 1
        if is_deleted_since(self._database.get(ROW + row_key), version):
            write.delete(ROW + row_key)  # it stood there for its earlier versions alone
        return None

    def _row(self, cursor: Any, write: WriteBatch) -> bytes | None:
        row_key, stored = cursor.key()[1:], cursor.value()
        row = value_of(stored)
        if row is None or version_of(stored) >= self.horizon.cuts[self._rows.owner(row_key)]:
            return None
        if self._rows.is_over(row_key, row, self.horizon):
            write.delete(ROW + row_key)
            for version_key, _ in self._database.items(undo_key(row_key, 0), backwards=False):
                if place_in_undo_key(version_key)[0] != row_key:
                    break
                write.delete(version_key)  # the offsets that an explanation would have named
            self._hash_of_left = (self._hash_of_left + row_hash(row_key, row)) % MODULUS
            self.deleted += 1
        return None

    def _late(self, cursor: Any, write: WriteBatch) -> bytes | None:
        topic, offset = place_in_late_key(cursor.key())
        if offset < self.horizon.cuts[topic]:
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


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))
