"""The monitor beside the API in one process: it works by itself, ends with it, and a bug of its own is an alert."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.given import given
from tests.logs import fold_into
from tests.projections.test_checks import a_log
from tests.streams.build import HOUR, T0, configured, period_closed, shelf, snapshot
from tests.waiting import in_time, limit

from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.monitor import Monitor, make_monitor
from coordinator.api.server import _answering, _run
from coordinator.infra.processes.sockets import listen
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.clock import wall_ms
from coordinator.streams.settings import Settings


class Commands:
    def __init__(self):
        self.sent = []

    async def send(self, command):
        self.sent.append(command)
        return len(self.sent) - 1


class Folded(Projector):
    """A projector whose log is folded already."""

    async def run(self):
        while not self.stopping:
            await asyncio.sleep(0.02)


class Guard:
    """The guard of a log that stays unchanged."""

    async def watch(self):
        await asyncio.Event().wait()


@pytest.fixture
def parts(tmp_path):
    settings = Settings(data_dir=tmp_path, monitor_seconds=0.1, chain="fake", settle_rehearsals=True)
    read = open_read_models(tmp_path, "cluster", "btc-up")
    projector = Folded(settings, read)
    projector._started = True
    yield projector, Commands()
    read.close()


async def serving(projector, port, monitor, ask):
    """Serves on a real socket, calls `ask`, stops."""
    app = create_app(projector.settings, Sender(projector, port), monitor=monitor)
    bound = listen("127.0.0.1", 0, "a port")
    stopping = asyncio.Event()

    async def run():
        async with _answering(app, bound) as answering:
            await _run(projector, monitor, Guard(), answering, stopping)

    running = asyncio.create_task(run())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
            return await ask(client)
    finally:
        stopping.set()
        await in_time(running)
        bound.close()


async def test_a_broken_log_is_found_without_a_request_and_the_stage_withholds_the_next_checkpoint(parts):
    projector, port = parts
    log = a_log()
    log.append("predictions", log._opened("inp/BTCUSDT/9", T0, ["m1", "m2"], ["60s"]))
    log.append("predictions", *log._answers("inp/BTCUSDT/9", "60s", T0, {"m1": 0.5}))
    fold_into(projector.folder, log)

    async def ask(client):
        async with limit():
            while True:
                body = (await client.get("/reports/invariants")).json()
                if body["looked_at"] is not None:
                    return body, (await client.get("/reports/chain")).json()
                await asyncio.sleep(0.05)

    body, chain = await serving(projector, port, make_monitor(projector, port), ask)
    assert body["withholding"] == ["predictions"]
    assert chain["adapter"] == "fake"
    (command,) = [event for event in port.sent if isinstance(event, ev.WithholdCheckpoint)]

    # The real stage meets that command in its log, so a replay of the log decides the same.
    scene = given(CheckpointStage("btc-up", shelf())).own(configured(effective_from=T0))
    scene.when("commands", command).then()
    scene.when("snapshots", snapshot("a", T0, 9), period_closed(T0, T0 + 6 * HOUR, 1))
    withheld = scene.only(ev.CheckpointWithheld)
    assert "the invariant 'predictions' is broken" in withheld.data.reason
    assert "2 were asked, 1 are recorded" in withheld.data.reason


async def test_a_projector_that_waits_for_the_broker_does_not_delay_the_end(parts, monkeypatch):
    """At its start it reads the topics' ends, and waits half a minute for each that does not answer."""
    projector, port = parts
    monkeypatch.setattr(projector, "run", asyncio.Event().wait)

    async def ask(client):
        return (await client.get("/healthz")).status_code

    assert await serving(projector, port, make_monitor(projector, port), ask) == 200


async def test_a_bug_of_the_monitor_is_an_alert_and_the_api_goes_on(parts):
    """The API used to end with such a bug, and its answers with it."""
    projector, port = parts

    class Buggy(Monitor):
        async def look(self):
            raise ZeroDivisionError

    async def ask(client):
        async with limit():
            while not (alerts := (await client.get("/reports/invariants")).json()["alerts"]):
                await asyncio.sleep(0.05)
        return alerts, (await client.get("/reports/leaderboard")).status_code

    (alert,), status = await serving(projector, port, Buggy(projector, port, wall_ms), ask)
    assert (alert["kind"], alert["name"], alert["text"]) == ("task", "monitor", "ZeroDivisionError")
    assert status == 200
