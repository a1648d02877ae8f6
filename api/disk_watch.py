"""The disk of the data directory: has it room, and does it take writes in time? The answers become the alert `disk`.

A small file is written and forced to the disk again and again, in a thread. How long that takes is what Kafka and every
worker of this machine wait for: a disk that is slow stops them for as long, and none of them can say why.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from coordinator.infra.disk import full_disk_of
from coordinator.infra.webhook import Alert

ROOM_BYTES_MIN, ROOM_SHARE_MIN = 1024**3, 0.1
SLOW_MS, SLOW_LASTING_MS = 1_000, 15_000
"""A disk answers within milliseconds, a busy one within a second; one long write among quick ones is no fault."""
PROBE_BYTES = 4096
PROBE_SECONDS = 3.0
PROBE_FILE = ".disk-probe"


class DiskWatch:
    """Looks at the file system of `folder`. `steady_ms`: a time in ms that never steps."""

    def __init__(self, folder: Path, steady_ms: Callable[[], int]) -> None:
        self._folder, self._steady_ms = folder, steady_ms
        self._began: int | None = None
        self._slow_since: int | None = None
        """When the first write of those began that were all slow."""
        self._took_ms = 0

    async def run(self) -> None:
        """Write again and again until cancelled. Raises OSError where nothing can be written."""
        while True:
            await asyncio.to_thread(self._write)
            await asyncio.sleep(PROBE_SECONDS)

    @property
    def write_ms(self) -> int:
        """How long the last write took, or the one has lasted that is under way, whichever is more."""
        began = self._began
        return self._took_ms if began is None else max(self._took_ms, self._steady_ms() - began)

    def alerts(self) -> Iterator[Alert]:
        """What is wrong with it now."""
        yield from full_disk(self._folder)
        since = self._began if self._slow_since is None else self._slow_since
        if since is None or self.write_ms < SLOW_MS or self._steady_ms() - since < SLOW_LASTING_MS:
            return
        what = f"{PROBE_BYTES} bytes take {self.write_ms / 1000:.1f} s"
        yield Alert("disk", "slow", f"the disk of {self._folder} is slow: {what} until they are on it")

    def _write(self) -> None:
        began = self._began = self._steady_ms()
        try:
            write_through(self._folder / PROBE_FILE)
        except OSError as error:
            if full_disk_of(error) is None:  # that it is full, its room says
                raise
        finally:
            self._took_ms = self._steady_ms() - began
            if self._took_ms < SLOW_MS:
                self._slow_since = None
            elif self._slow_since is None:
                self._slow_since = began
            self._began = None


def write_through(path: Path) -> None:
    """Write a small file, wait until the disk has it, and delete it. Raises OSError."""
    with path.open("wb", buffering=0) as file:
        file.write(bytes(PROBE_BYTES))
        os.fsync(file.fileno())
    path.unlink()


def full_disk(folder: Path) -> Iterator[Alert]:
    """The file system of `folder`, where there is little room left on it."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        yield Alert("disk", str(folder), f"{folder} cannot be checked: {error.strerror or error}")
        return
    if usage.free < ROOM_BYTES_MIN and usage.free < ROOM_SHARE_MIN * usage.total:
        what = f"{usage.free / 1e6:,.0f} of {usage.total / 1e6:,.0f} MB are free for {folder}"
        yield Alert("disk", "space", f"{what}: free some space, because nothing in the log is ever deleted")
