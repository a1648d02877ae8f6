"""A full disk and a slow disk are reported. A busy one, and a single long write, are not."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from types import SimpleNamespace

import pytest
from tests.waiting import limit

from coordinator.api import disk_watch
from coordinator.api.disk_watch import PROBE_FILE, SLOW_LASTING_MS, SLOW_MS, DiskWatch, full_disk


class Disk:
    """Accepts a write when it is told to. Each takes as long as the clock is moved meanwhile."""

    def __init__(self, monkeypatch, folder):
        self.now, self.taken = 0, threading.Semaphore(0)
        self.error: OSError | None = None
        self.began = 0
        monkeypatch.setattr(disk_watch, "write_through", self._write)
        monkeypatch.setattr(disk_watch, "PROBE_SECONDS", 0)
        self.watch = DiskWatch(folder, lambda: self.now)

    def _write(self, _path):
        self.began += 1
        self.taken.acquire()
        if self.error is not None:
            raise self.error

    async def writes(self, took_ms: int) -> None:
        """The running write ends after this time, and the next one begins."""
        begun = self.began
        self.now += took_ms
        self.taken.release()
        async with limit():
            while self.began == begun:
                await asyncio.sleep(0.001)

    def told(self) -> list[tuple[str, str]]:
        return [(alert.name, alert.text) for alert in self.watch.alerts()]


@pytest.fixture
async def disk(monkeypatch, tmp_path):
    slow_disk = Disk(monkeypatch, tmp_path)
    running = asyncio.create_task(slow_disk.watch.run())
    async with limit():
        while not slow_disk.began:
            await asyncio.sleep(0.001)
    yield slow_disk
    running.cancel()
    slow_disk.taken.release(1000)
    await asyncio.wait([running])


async def test_a_disk_whose_writes_are_all_slow_is_reported_after_a_while(disk):
    for _ in range(SLOW_LASTING_MS // SLOW_MS - 1):
        await disk.writes(SLOW_MS)
        assert disk.told() == []
    await disk.writes(SLOW_MS)
    ((name, text),) = disk.told()
    assert name == "slow"
    assert "is slow: 4096 bytes take 1.0 s until they are on it" in text
    await disk.writes(SLOW_MS - 1)
    assert disk.told() == []


async def test_a_write_that_does_not_end_is_reported_while_it_lasts(disk):
    disk.now += SLOW_LASTING_MS - 1
    assert disk.told() == []
    disk.now += 1
    assert "take 15.0 s" in disk.told()[0][1]
    assert disk.watch.write_ms == SLOW_LASTING_MS


async def test_one_long_write_among_quick_ones_is_no_slow_disk(disk):
    for _ in range(3):
        await disk.writes(SLOW_LASTING_MS - 1)
        await disk.writes(5)
        assert disk.told() == []


async def test_a_full_disk_is_not_called_slow(disk):
    disk.error = OSError(errno.ENOSPC, "full")
    await disk.writes(5)
    assert disk.told() == []


async def test_a_disk_that_cannot_be_written_fails_the_task(tmp_path):
    with pytest.raises(FileNotFoundError):
        await DiskWatch(tmp_path / "gone", lambda: 0).run()


def test_a_write_reaches_the_disk_and_leaves_nothing(tmp_path):
    disk_watch.write_through(tmp_path / PROBE_FILE)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_little_room_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=300_000_000, free=10_000_000))
    (alert,) = full_disk(tmp_path)
    assert "10 of 300 MB are free" in alert.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**12, free=10**12))
    assert not list(full_disk(tmp_path))
