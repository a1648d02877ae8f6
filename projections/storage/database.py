"""RocksDB as our stores use it: whatever it raises is told apart by what must be done about it.

Reads and writes the files under one folder. A damaged file gives StoreDamagedError, a full disk DiskFullError, too few
open files, no leave to write or another process OperatorError. RocksDB's own iterators end at a damaged block as if
there were no more rows, and tell only by their status: here every end of an iteration is looked at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rocksdict import Rdict, RdictIter

from coordinator.infra.disk import DiskFullError, says_full
from coordinator.streams.log.errors import CoordinatorError, OperatorError

HELD = ("While lock file", "lock hold by")
"""RocksDB's words for a lock that somebody has. A damaged block is a "b-lock checksum mismatch", which is none."""
NOT_LET = tuple(os.strerror(number) for number in (errno.EACCES, errno.EPERM, errno.EROFS))


class StoreDamagedError(CoordinatorError):
    """A store cannot be read: not a database, or a checksum in it is wrong. Rebuilding it from the log mends
    it.
    """


def judged(path: Path, error: Exception) -> Exception:
    """What RocksDB's error means: the one to raise in its place."""
    text = " ".join(str(error).split())
    if any(words in text for words in HELD):
        return OperatorError(f"{path} is open in another process: stop it first ({text})")
    if says_full(text):
        return DiskFullError(path, text)
    if any(words in text for words in NOT_LET):
        return OperatorError(f"{path} cannot be used: {text}; let the node's user read and write there")
    if "Too many open files" in text:
        return OperatorError(f"{path}: too many open files; raise the limit (ulimit -n 65536) ({text})")
    if "orruption" in text or "IO error" in text or "Invalid argument" in text:
        return StoreDamagedError(f"{path} cannot be read: {text}")
    return error


class Cursor:
    """A RocksDB iterator. Raises StoreDamagedError where it ends by damage and not by the end of the rows."""

    __slots__ = ("_cursor", "_raise", "key", "next", "prev", "seek", "seek_for_prev", "value")

    def __init__(self, cursor: RdictIter, raise_as: Callable[[Exception], Exception]) -> None:
        self._cursor, self._raise = cursor, raise_as
        self.key, self.value = cursor.key, cursor.value
        self.next, self.prev = cursor.next, cursor.prev
        self.seek, self.seek_for_prev = cursor.seek, cursor.seek_for_prev

    def valid(self) -> bool:
        """Does it stand at a row?"""
        if self._cursor.valid():
            return True
        self.status()
        return False

    def status(self) -> None:
        """Raise what ended it, if anything did."""
        try:
            self._cursor.status()
        except Exception as error:
            raise self._raise(error) from error


class Database:
    """One RocksDB. `on_damage` is called with the reason at the first StoreDamagedError."""

    def __init__(self, path: Path, raw: Rdict, on_damage: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._raw = raw
        self._on_damage = on_damage
        self.damage = ""
        """Why it can no longer be trusted; empty while it can."""

    def _raise(self, error: Exception) -> Exception:
        judged_error = judged(self.path, error)
        if isinstance(judged_error, StoreDamagedError) and not self.damage:
            self.damage = str(judged_error)
            if self._on_damage is not None:
                self._on_damage(self.damage)
        return judged_error

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        try:
            return self._raw.get(key)
        except Exception as error:
            raise self._raise(error) from error

    def iter(self) -> Cursor:
        """A cursor over all keys."""
        return Cursor(self._raw.iter(), self._raise)

    def items(self, first: bytes, *, backwards: bool) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in key order from `first` on, or backwards."""
        last = first
        items: Any = self._raw.items(backwards=backwards, from_key=first)
        for key, value in items:
            last = key
            yield key, value
        cursor = self.iter()
        (cursor.seek_for_prev if backwards else cursor.seek)(last)
        if cursor.valid() and cursor.key() == last:
            (cursor.prev if backwards else cursor.next)()
            cursor.valid()

    def write(self, batch: Any) -> None:
        """All of the batch or nothing."""
        try:
            self._raw.write(batch)
        except Exception as error:
            raise self._raise(error) from error

    def flush(self) -> None:
        """Write out what is in memory."""
        try:
            self._raw.flush()
        except Exception as error:
            raise self._raise(error) from error

    def close(self) -> None:
        """Let go."""
        self._raw.close()
