"""A clock that jumps does not prolong anything, and a clock that is ahead is reported alone, without its consequences."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder, fold_into

from coordinator.api.monitor import Monitor
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings


class NobodyToTell:
    async def send(self, command):
        raise AssertionError(command)


@pytest.fixture
def node(tmp_path):
    """A monitor over a log with one record and one tick, and the two clocks that it reads."""
    read = open_read_models(tmp_path, "cluster", "btc-up")
    projector = Projector(Settings(data_dir=tmp_path), read)
    log = LogBuilder()
    log.terms()
    log.record(START_MS - MINUTE_MS)
    log.tick(START_MS)
    clock = SimpleNamespace(wall=START_MS, steady=7)
    monitor = Monitor(projector, NobodyToTell(), lambda: clock.wall, steady_ms=lambda: clock.steady)

    async def look():
        fold_into(projector.folder, log)
        await monitor.look()
        return sorted((alert.kind, alert.name) for alert in monitor.alerts.current.values())

    yield SimpleNamespace(look=look, clock=clock, log=log)
    read.close()


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -5_000])
async def test_a_jump_of_the_clock_is_not_an_hour_that_passed(node, jump_ms):
    assert await node.look() == []
    node.clock.wall += jump_ms
    node.clock.steady += 1000
    assert await node.look() == []


async def test_elapsed_time_is_seen_although_the_clock_was_set_back(node):
    assert await node.look() == []
    node.clock.wall -= 5_000
    node.clock.steady += 300_000
    assert await node.look() == [("feed", "stalled")]


async def test_a_clock_that_is_ahead_is_reported_alone(node):
    assert await node.look() == []
    data = ev.FeedStateChangedData(source="clock", state="ahead", reason="this machine's clock is ahead")
    node.log.append("feeds", ev.FeedStateChanged(id="s", at=START_MS, data=data))
    node.clock.wall += HOUR_MS
    for _ in range(2):
        node.clock.steady += 300_000
        assert await node.look() == [("clock", "ahead")]
