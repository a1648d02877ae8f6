"""Tasks beside the projector are supervised separately: one that fails is reported and restarted, and stops no other."""

from __future__ import annotations

import asyncio

import pytest
from tests.waiting import limit

from coordinator.api import side_tasks
from coordinator.api.monitor import Monitor
from coordinator.api.side_tasks import SideTask


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(side_tasks, "PAUSE_SECONDS_MIN", 0.001)
    monkeypatch.setattr(side_tasks, "PAUSE_SECONDS_MAX", 0.004)


async def until(true):
    async with limit():
        while not true():
            await asyncio.sleep(0.001)


async def test_a_task_that_fails_is_reported_restarted_and_in_time_counts_as_recovered():
    tries = []

    async def run():
        tries.append(1)
        if len(tries) < 4:
            raise ValueError("https://secret")
        await asyncio.Event().wait()

    task = SideTask("watch", run, mended_seconds=0.05)
    running = asyncio.create_task(task.supervise())
    await until(lambda: len(tries) == 4)
    assert task.failures == 3
    assert task.error.startswith("ValueError; ")
    assert "secret" not in task.error
    await until(lambda: not task.error)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_task_that_ends_by_itself_is_not_restarted():
    tries = []

    async def run():
        tries.append(1)

    await SideTask("once", run).supervise()
    assert tries == [1]


class Fails:
    """A side task of the monitor that always fails."""

    error = ""

    async def run(self):
        raise UnicodeError("label too long")


async def test_the_monitor_continues_beside_a_task_that_fails_and_names_it(api):
    monitor = Monitor(api.projector, api.stage, lambda: 1, replay_check=Fails())
    monitor.replay_check.finding = Monitor(api.projector, api.stage, lambda: 1).replay_check.finding
    running = asyncio.create_task(monitor.run())
    await until(lambda: ("task", "replay check") in monitor.alerts.current)
    looked = monitor.alerts.current["task", "replay check"].text
    assert "UnicodeError" in looked
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_check_that_fails_is_an_alert_and_the_next_one_runs(api, monkeypatch):
    monitor = Monitor(api.projector, api.stage, lambda: 1)
    looks = []
    look = monitor.look

    async def fails_first():
        looks.append(1)
        if len(looks) == 1:
            raise KeyError("a bug")
        await look()

    monkeypatch.setattr(monitor, "look", fails_first)
    running = asyncio.create_task(monitor.run())
    await until(lambda: len(looks) == 2)
    assert ("task", "monitor") in monitor.alerts.current
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
