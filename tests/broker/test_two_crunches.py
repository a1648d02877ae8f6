"""Two crunches on one cluster: one has its workers killed and loses its topics, the other does not notice.

The name of one begins with the name of the other. What rights keep apart stands in `test_kafka_rights.py`.
"""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.broker.crash import LONG_SESSION, Board, board
from tests.broker.fixed_log import ROUNDS_A_CHUNK, FixedLog, fixed_log
from tests.waiting import limit

from coordinator.infra.kafka.groups import stage_members
from coordinator.streams.topology import TOPICS, topic_name

pytestmark = pytest.mark.broker
STAGES = ("scores", "snapshots")
CHUNKS = {"harmed": 5, "calm": 7}
"""Logs of different lengths: with a record of the other one, neither would be what it must be."""
KILLS = 2


async def members(field: Board) -> tuple[int, int]:
    """How many processes the groups of both stages have."""
    of_stage = await stage_members(field.bootstrap, field.crunch_id)
    return of_stage["score"], of_stage["aggregate"]


async def kill_and_replace(harmed: Board, log: FixedLog) -> None:
    """A worker is killed, and its standby takes over."""
    owner, standby = harmed.workers[-2:]
    claims = await harmed.claims("scores")
    owner.kill()
    await harmed.feed(log)
    await standby.wait_resumed(*STAGES)
    async with limit():
        while await harmed.claims("scores") <= claims:
            await asyncio.sleep(0.1)
    # Until then it looks at the topics: deleted at that moment, they are a broker's silence to it, and not lost.
    await harmed.start("score", **LONG_SESSION).wait_event("worker_started")


async def delete_topics(field: Board) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=field.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic_name(field.crunch_id, topic) for topic in TOPICS])
    finally:
        await admin.close()


async def test_an_operation_on_a_crunch_does_not_affect_another_one_on_the_cluster(
    kafka_bootstrap, crunch_id, tmp_path
):
    names = {"harmed": crunch_id, "calm": f"{crunch_id}-2"}
    logs = {which: fixed_log(name, ROUNDS_A_CHUNK * CHUNKS[which]) for which, name in names.items()}
    async with (
        board(kafka_bootstrap, names["harmed"], tmp_path) as harmed,
        board(kafka_bootstrap, names["calm"], tmp_path) as calm,
    ):
        await harmed.feed(logs["harmed"])
        await calm.feed(logs["calm"])
        untouched = calm.start("score", **LONG_SESSION)
        await untouched.wait_resumed(*STAGES)
        await harmed.start("score", **LONG_SESSION).wait_resumed(*STAGES)
        standby = harmed.start("score", **LONG_SESSION)
        await standby.wait_event("worker_started")
        for _ in range(KILLS):
            await kill_and_replace(harmed, logs["harmed"])
            await calm.feed(logs["calm"])
        await harmed.feed_all(logs["harmed"])
        await harmed.wait_decided(logs["harmed"], STAGES)
        await harmed.assert_equal(logs["harmed"], STAGES)
        assert await harmed.claims("scores") == 1 + KILLS
        assert await members(calm) == (1, 1)

        await delete_topics(harmed)
        for worker in harmed.workers[-2:]:
            assert await worker.wait_end() == 2, worker.tail()  # the operator must restore them
        await calm.feed_all(logs["calm"])
        await calm.wait_decided(logs["calm"], STAGES)
        await calm.assert_equal(logs["calm"], STAGES)
        for stage in STAGES:
            assert await calm.claims(stage) == 1
            assert await calm.late_appends(stage) == 0
        assert len(untouched.events("partitions_revoked", ours=True)) == 0
        assert await untouched.stop() == 0
