"""A data directory belongs to one crunch and, at any time, to one running node.

Reads and writes `crunch.json` (whose directory this is) and `lock` (who is using it now). Two nodes in one
directory would write two brokers' logs over each other; another crunch's directory would answer with another
crunch's history. Both are refused before anything is started.

The lock is the kernel's (`flock`): it goes with the process, however that ends, so no stale lock is ever
left. A command that needs the directory of a stopped node holds it for a while: a node that is started meanwhile waits
for it, and does not end.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from coordinator.streams.log.errors import OperatorError

MARKER = "crunch.json"
LOCK = "lock"
COMMAND = ", a command that ends by itself"
"""What the lock says of a holder that is no node."""
WAIT_SECONDS = 0.2
LOOKS_AT_NODE = 3
"""How often in a row a node is seen to hold the directory before it is believed: the text is written after the lock."""
FILE_SYSTEMS = ("lost+found", ".snapshot", ".snapshots", ".zfs", ".Trash-1000", ".DS_Store")
"""What file systems and their tools put into a volume's root by themselves: an empty volume has it too."""


class DataDirClaim:
    """A data directory held by this process until `release()` (or the end of the process).

    Use it as a context manager, or keep it referenced for as long as the directory is used.
    """

    def __init__(self, data_dir: Path, crunch_id: str, lock_file: IO[str]) -> None:
        self.data_dir = data_dir
        self.crunch_id = crunch_id
        self._lock_file = lock_file

    def release(self) -> None:
        """Give the directory back. Releasing twice changes nothing."""
        self._lock_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_data_dir(
    data_dir: Path,
    crunch_id: str,
    *,
    for_command: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> DataDirClaim:
    """Take `data_dir` for `crunch_id`, making it where it is missing.

    `for_command`: the claim is given back soon, by itself. `on_wait`: wait while such a claim is held, however long,
    and call this once with the reason.
    Raises OperatorError when another process uses it, when it is another crunch's, when it holds files of
    something else, or when it cannot be written.
    """
    data_dir = data_dir.expanduser().absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock_file = (data_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise OperatorError(
            f"data directory {data_dir} cannot be used ({error.strerror}); choose another with --data-dir"
        ) from error
    try:
        if on_wait is not None:
            _wait_for_command(lock_file, data_dir, on_wait)
        _lock_or_say_who(lock_file, data_dir)
        _mark_or_refuse(data_dir, crunch_id)
        lock_file.seek(0)
        lock_file.truncate()
        lock_file.write(f"process {os.getpid()} of crunch {crunch_id}{COMMAND if for_command else ''}")
        lock_file.flush()
    except BaseException:
        lock_file.close()
        raise
    return DataDirClaim(data_dir, crunch_id, lock_file)


def holder_of(data_dir: Path) -> int | None:
    """The id of the process that holds the directory now, None when none does (0: one that has not said it yet)."""
    try:
        lock_file = (data_dir / LOCK).open("r", encoding="utf-8")
    except OSError:
        return None
    with lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            match = re.match(r"process (\d+) ", lock_file.read())
            return int(match[1]) if match else 0
    return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for, then hold, the lock file at `path`: one process at a time does what is inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def remove_left(folder: Path, pattern: str) -> None:
    """Remove the folders that a killed process has left there. For whoever holds the lock that their makers hold."""
    for left in folder.glob(pattern):
        shutil.rmtree(left, ignore_errors=True)


def _wait_for_command(lock_file: IO[str], data_dir: Path, on_wait: Callable[[str], None]) -> None:
    """Return when the directory is free, or when a node holds it."""
    looks_at_node = 0
    told = False
    while looks_at_node < LOOKS_AT_NODE:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            holder = lock_file.read()
            if holder.endswith(COMMAND):
                looks_at_node = 0
                if not told:
                    told = True
                    on_wait(f"data directory {data_dir} is in use by {holder}: waiting for it")
            else:
                looks_at_node += 1
            time.sleep(WAIT_SECONDS)
        else:
            return


def _lock_or_say_who(lock_file: IO[str], data_dir: Path) -> None:
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.seek(0)
        holder = lock_file.read().strip() or "another process"
        raise OperatorError(
            f"data directory {data_dir} is in use by {holder}; stop it or choose another with --data-dir"
        ) from None


def _mark_or_refuse(data_dir: Path, crunch_id: str) -> None:
    marker = data_dir / MARKER
    if marker.exists():
        owner = _owner(marker)
        if owner != crunch_id:
            raise OperatorError(
                f"data directory {data_dir} belongs to crunch {owner}, not to crunch {crunch_id}; "
                "choose another with --data-dir, or set CRUNCH_ID"
            )
        return
    partial = data_dir / f"{MARKER}.partial"
    ours = {LOCK, partial.name, *FILE_SYSTEMS}
    strangers = sorted(entry.name for entry in data_dir.iterdir() if entry.name not in ours)
    if strangers:
        raise OperatorError(
            f"data directory {data_dir} has no {MARKER} but holds {strangers[0]}; "
            "choose an empty or a new one with --data-dir"
        )
    partial.write_text(json.dumps({"crunch_id": crunch_id}) + "\n", encoding="utf-8")
    partial.replace(marker)


def _owner(marker: Path) -> str:
    try:
        owner = json.loads(marker.read_text(encoding="utf-8"))["crunch_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise OperatorError(
            f"{marker} cannot be read ({error!r}); it should hold the crunch's id: "
            '{"crunch_id": "..."}. Correct it, or choose another directory with --data-dir'
        ) from error
    return str(owner)
