"""The broker is killed with -9 and comes back: the workers continue by themselves, and nothing is lost or repeated."""

from __future__ import annotations

import asyncio

import pytest
from tests.broker.crash import WorkerProcess, board
from tests.broker.fixed_log import fixed_log, make_commands
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.infra.log.followed_topic import FollowedTopic
from coordinator.streams.log.errors import WorldError

pytestmark = pytest.mark.broker

STAGES = ("scores", "snapshots", "checkpoints")


async def follow_into_an_outage(broker: EmbeddedBroker, crunch_id: str) -> None:
    async with FollowedTopic(broker.bootstrap, crunch_id, "inputs") as followed:
        assert [decision async for decision in followed.decisions()]
        broker.kill()
        assert not [decision async for decision in followed.decisions()]


@pytest.mark.parametrize("away_seconds", [3, pytest.param(35, marks=pytest.mark.slow)])
async def test_workers_outlive_the_broker(tmp_path, away_seconds):
    """The idempotent producer retries a send for as long as it takes, so an outage costs no claim."""
    ensure_runtime()
    crunch_id = "outage"
    log, commands = fixed_log(crunch_id, 180), make_commands(crunch_id)
    broker = EmbeddedBroker(tmp_path / "kafka")
    broker.start()
    try:
        broker.wait_ready(LIMIT_SECONDS)
        async with board(broker.bootstrap, crunch_id, tmp_path) as field:
            await field.put("commands", commands["before"])
            await field.feed(log)
            workers = [field.start("score")]
            await workers[0].wait_resumed("scores", "snapshots")
            await field.feed(log)
            # Who follows, as a shadow does, waits for that and begins again.
            with pytest.raises(WorldError, match="stopped answering"):
                await follow_into_an_outage(broker, crunch_id)
            workers.append(field.start("checkpoint"))  # and one begins while there is no broker
            await asyncio.sleep(away_seconds)
            broker.start()
            await asyncio.to_thread(broker.wait_ready, LIMIT_SECONDS)
            async with limit():
                while not workers[1].events("stage_resumed", stage="checkpoints"):
                    if (
                        workers[1].process.poll() is not None
                    ):  # it said so, and its supervisor begins it again
                        assert workers[1].process.returncode == 70
                        assert "does not answer" in workers[1].output
                        field.workers.remove(workers[1])
                        workers[1] = field.start("checkpoint")
                    await asyncio.sleep(0.1)
            await field.feed_all(log)
            await field.wait_decided(log, STAGES[:2])
            await field.wait_built(log)
            await field.put("commands", commands["first"] + commands["last"])
            await field.wait_decided(log, STAGES[2:])
            await field.assert_equal(log, STAGES)
            assert [await field.claims(topic) for topic in STAGES] == [1, 1, 1]
            assert [worker.process.poll() for worker in workers] == [None, None], "ended and did not go on"
            assert [await worker.stop() for worker in workers] == [0, 0]
    finally:
        broker.stop()


async def test_a_worker_without_its_topics_tells_what_to_do(kafka_bootstrap, tmp_path):
    worker = WorkerProcess("score", kafka_bootstrap, "no-such-crunch", tmp_path)
    try:
        assert await worker.wait_end() == 2
        assert "topic no-such-crunch.feeds does not exist" in worker.output
        assert "coordinator topics create" in worker.output
    finally:
        worker.kill()
