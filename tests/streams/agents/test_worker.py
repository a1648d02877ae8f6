"""The worker's process: what ends it, and that no failure inside it goes unnoticed."""

from __future__ import annotations

import asyncio
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import in_time, limit, until

from coordinator.streams.agents.owning.faust_app import end_process, stage_app
from coordinator.streams.agents.owning.keeper import Keeper
from coordinator.streams.agents.workers import Worker
from coordinator.streams.log.errors import OperatorError, TruncatedTopicError, WorldError
from coordinator.streams.settings import Settings


class FakeApp:
    """The parts of a Faust app that a worker uses."""

    def __init__(self) -> None:
        self.conf = SimpleNamespace(id="a-stage")
        self.should_stop = False
        self.crash_reason: BaseException | None = None
        self.stopped = False

    def finalize(self) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True


class FakeIO:
    async def connect(self) -> None: ...


@pytest.fixture
async def worker() -> Any:
    worker_ = Worker(
        Settings(kafka_bootstrap="127.0.0.1:1"), "score"
    )  # whatever listens on 9092 here is not contacted
    worker_.io = FakeIO()  # type: ignore[assignment]
    worker_.apps.append(FakeApp())  # type: ignore[arg-type]
    return worker_


async def test_a_worker_told_to_stop_stops_its_apps(worker):
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run_until(stop))
    await asyncio.sleep(0.05)
    stop.set()
    await in_time(running)
    assert worker.apps[0].stopped


async def test_an_app_that_crashes_inside_ends_the_worker(worker):
    running = asyncio.create_task(worker.run_until(asyncio.Event()))
    await asyncio.sleep(0.05)
    worker.apps[0].crash_reason, worker.apps[0].should_stop = RuntimeError("its consumer died"), True
    with pytest.raises(WorldError, match=r"a-stage.*its consumer died"):
        await in_time(running)


async def test_a_task_that_fails_ends_the_worker(worker):
    async def fails() -> None:
        raise ZeroDivisionError

    worker.tasks.append(fails())
    with pytest.raises(ZeroDivisionError):
        await in_time(worker.run_until(asyncio.Event()))


async def test_what_a_standby_kept_ready_is_there_until_its_claim_has_used_it(worker, monkeypatch):
    monkeypatch.setattr("coordinator.streams.agents.workers.READY_SECONDS", 0.0)
    looks, ended = 0, asyncio.Event()

    class Claiming:
        """A keeper whose stage is assigned."""

        is_open = False

        @property
        def stands_by(self) -> bool:
            nonlocal looks
            looks += 1
            return False

    async def end_ready() -> None:
        ended.set()

    worker.io.end_ready = end_ready
    worker.keepers.append(Claiming())
    keeping = asyncio.create_task(worker._keep_ready())
    await until(lambda: looks > 1)
    assert not ended.is_set()
    worker.keepers[0].is_open = True
    await in_time(ended.wait())
    keeping.cancel()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (None, 0, ""),
        (OperatorError("name a contract"), 2, "coordinator worker score: name a contract\n"),
        (TruncatedTopicError("a topic was cut"), 2, "coordinator worker score: a topic was cut\n"),
        (ZeroDivisionError("a bug"), 70, ""),
    ],
    ids=["told", "operator", "topic", "bug"],
)
def test_a_worker_ends_with_its_exit_code(error, code, says, monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        end_process("score", error)
    out, stderr = capsys.readouterr()
    assert ended.value.code == code
    assert stderr.endswith(says)  # an earlier test may have sent the log to stderr
    if error is not None:
        assert type(error).__name__ in out + stderr


async def test_a_stage_needs_no_folder_and_so_runs_as_any_user_on_a_read_only_disk():
    async def tell(_: BaseException) -> None: ...

    app = stage_app(Settings(), "a-stage", "feeds", Keeper("a-stage", lambda: None, 1.0), tell)
    app.finalize()
    app._create_directories()  # created by Faust at its start; under /dev/null not even root could make one


async def test_a_worker_at_work_touches_its_health_file(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.streams.agents.workers.ALIVE_SECONDS", 0.01)
    touched = tmp_path / "alive"
    stop = asyncio.Event()
    worker.settings = Settings(health_file=str(touched))
    running = asyncio.create_task(worker.run_until(stop))
    for _ in range(2):
        async with limit():
            while not touched.exists():
                await asyncio.sleep(0.01)
        touched.unlink()
    stop.set()
    await running
