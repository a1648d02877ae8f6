"""Files that appear whole or not at all, so that nobody reads a half of one, whenever its writer is killed."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from coordinator.infra.disk import FULL
from coordinator.streams.log.errors import OperatorError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then put it there in one step, also if another process does the same meanwhile.

    It is not forced to the disk: what must outlast a power cut does that itself. Raises OSError.
    """
    partial = _partial(path)
    try:
        with _named(path):
            partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_has_folder(path: Path, advice: str = "") -> None:
    """Raises OperatorError, which ends with the advice, if the folder in which `path` is to be made is not there or
    takes nothing.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OperatorError(f"there is no folder {folder}{advice}")
    _check_writable(folder)


def check_to_write(path: Path) -> None:
    """Can a file be written there? A command asks before it does the work that it is for. Raises OperatorError."""
    check_has_folder(path)
    if path.is_dir():
        raise OperatorError(f"{path} is a folder: name a file")


def check_to_make(folder: Path) -> None:
    """Is it a folder that takes files, or can it be made? Raises OperatorError."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OperatorError(f"{there} is not a folder: give another one")
    _check_writable(there)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OperatorError(f"{folder} cannot be written by this user, or is read-only")


@contextmanager
def writing_whole(path: Path) -> Iterator[IO[bytes]]:
    """A large file to write and read in pieces. It appears at `path` once all of it is on disk, or not at all.

    What an earlier writer of the same file left that was killed is removed: each writer holds a lock on its own part.
    Raises OperatorError (there is no such folder, or `path` is one), OSError.
    """
    check_to_write(path)
    for left in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.partial"):
        _remove_abandoned(left)
    partial = _partial(path)
    try:
        with _named(path), partial.open("w+b") as file:
            # Whoever begins to write the same file before this line removes this part: then this writer fails.
            with suppress(OSError):  # a file system without locks: there nothing is ever removed
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of a full disk does not name the file: this adds the name for the operator."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


def _remove_abandoned(partial: Path) -> None:
    with suppress(OSError), partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()
