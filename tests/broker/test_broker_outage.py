"""The broker is killed with -9 and comes back: the workers go on by themselves, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest
from tests.broker.crash import board
from tests.broker.fixed_log import fixed_log, make_commands

from coordinator.infra.broker import EmbeddedBroker
from coordinator.infra.fetch import ensure_runtime

pytestmark = pytest.mark.broker

STAGES = ("scores", "snapshots", "checkpoints")


@pytest.mark.parametrize("away_seconds", [3, pytest.param(35, marks=pytest.mark.slow)])
async def test_workers_outlive_the_broker(tmp_path, away_seconds):
    """The idempotent producer tries a send for as long as it takes, so an outage costs no claim."""
    ensure_runtime()
    crunch_id = "outage"
    log, commands = fixed_log(crunch_id, 180), make_commands(crunch_id)
    broker = EmbeddedBroker(tmp_path / "kafka")
    broker.start()
    try:
        broker.wait_ready()
        async with board(broker.bootstrap, crunch_id, tmp_path) as field:
            await field.put("commands", commands["before"])
            await field.feed(log)
            workers = [field.start("score"), field.start("checkpoint")]
            await workers[0].wait_event("stage_resumed", stage="snapshots")
            await workers[1].wait_event("stage_resumed", stage="checkpoints")
            await field.feed(log)
            broker.kill()
            await asyncio.sleep(away_seconds)
            broker.start()
            broker.wait_ready()
            await field.feed_all(log)
            await field.wait_decided(log, STAGES[:2], seconds=90)
            await field.put("commands", commands["first"] + commands["last"])
            await field.wait_decided(log, STAGES[2:], seconds=90)
            await field.assert_equal(log, STAGES)
            assert [await field.claims(topic) for topic in STAGES] == [1, 1, 1]
            assert [worker.process.poll() for worker in workers] == [None, None], "ended and did not go on"
            assert [await worker.stop() for worker in workers] == [0, 0]
    finally:
        broker.stop()
