"""RocksDB as our stores use it, with its errors sorted by what must be done about them.

Reads and writes the files in one folder. A damaged file raises StoreDamagedError, a full disk DiskFullError; a limit of
open files, missing permissions and a lock of another process raise OperatorError. RocksDB's own iterators end at a
damaged block as if there were no more rows, and only their status shows it: here the status is read at every end of an
iteration.
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

LOCKED = ("While lock file", "lock hold by")
"""RocksDB's words for a lock of another process. Longer than "lock": a damaged block is a "block checksum mismatch"."""
NOT_PERMITTED = tuple(os.strerror(number) for number in (errno.EACCES, errno.EPERM, errno.EROFS))


class StoreDamagedError(CoordinatorError):
    """A store cannot be read: it is not a database, or a checksum is wrong. It must be rebuilt from the log."""


def judged(path: Path, error: Exception) -> Exception:
    """The error to raise instead of RocksDB's."""
    text = " ".join(str(error).split())
    if any(words in text for words in LOCKED):
        return OperatorError(f"{path} is open in another process: stop that process first ({text})")
    if says_full(text):
        return DiskFullError(path, text)
    if any(words in text for words in NOT_PERMITTED):
        return OperatorError(f"{path} cannot be used: {text}; let the node's user read and write there")
    if "Too many open files" in text:
        return OperatorError(f"{path}: too many open files; raise the limit (ulimit -n 65536) ({text})")
    if "orruption" in text or "IO error" in text or "Invalid argument" in text:
        return StoreDamagedError(f"{path} cannot be read: {text}")
    return error


class Cursor:
    """A RocksDB iterator that raises StoreDamagedError if it ends because of damage."""

    __slots__ = ("_cursor", "_raise", "key", "next", "prev", "seek", "seek_for_prev", "value")

    def __init__(self, cursor: RdictIter, raise_as: Callable[[Exception], Exception]) -> None:
        self._cursor, self._raise = cursor, raise_as
        self.key, self.value = cursor.key, cursor.value
        self.next, self.prev = cursor.next, cursor.prev
        self.seek, self.seek_for_prev = cursor.seek, cursor.seek_for_prev

    def valid(self) -> bool:
        """Whether the cursor is at a row. Raises StoreDamagedError if damage ended it."""
        if self._cursor.valid():
            return True
        self.status()
        return False

    def status(self) -> None:
        """Raise the error that ended the iteration, if there was one."""
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
        """Why the database can no longer be trusted; "" while it can."""

    def _raise(self, error: Exception) -> Exception:
        judged_error = judged(self.path, error)
        if isinstance(judged_error, StoreDamagedError) and not self.damage:
            self.damage = str(judged_error)
            if self._on_damage is not None:
                self._on_damage(self.damage)
        return judged_error

    def condemn(self, reason: str) -> None:
        """Say that what the database holds is of no use: the next opening rebuilds it from the log."""
        self._raise(StoreDamagedError(f"{self.path} is of no use: {reason}"))

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
        """(key, value) in key order from `first` on, or backwards. Raises StoreDamagedError at a damaged block."""
        last = first
        items: Any = self._raw.items(backwards=backwards, from_key=first)
        for key, value in items:
            last = key
            yield key, value
        # The iteration ended, which may be damage. Step over the end again with a cursor, whose status shows it.
        cursor = self.iter()
        (cursor.seek_for_prev if backwards else cursor.seek)(last)
        if cursor.valid() and cursor.key() == last:
            (cursor.prev if backwards else cursor.next)()
            cursor.valid()

    def write(self, batch: Any) -> None:
        """Write all of the batch or nothing."""
        try:
            self._raw.write(batch)
        except Exception as error:
            raise self._raise(error) from error

    def flush(self, *, wait: bool = True) -> None:
        """Write to disk what is in memory; without `wait` in the background."""
        try:
            self._raw.flush(wait)
        except Exception as error:
            raise self._raise(error) from error

    def close(self) -> None:
        """Close the database."""
        self._raw.close()
