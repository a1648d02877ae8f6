"""Wires that carry one way alone, and a stage's owner that is parted from some of the cluster while its standby is not.

In each case the stage is decided on, by the standby where its owner cannot, and nothing is lost and nothing counts twice.
"""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from tests.hosts.cluster import (
    BROKERS,
    NEEDS_HOSTS,
    TAKEOVER_SECONDS_MAX,
    TOPIC_OF_WORKER,
    Cluster,
    hold_whole,
)
from tests.hosts.wires import Manner

from coordinator.infra.kafka.clients import PARTITION
from coordinator.infra.kafka.groups import WORKER_OF
from coordinator.streams.topology import topic_name

pytestmark = NEEDS_HOSTS
PARTED = ("score", "predict", "checkpoint")
NOTHING = Manner(lost_share=1)
PARTED_SECONDS_MAX = 90.0
"""Requests of 20 s fail twice, the group is looked at, and a session of 10 s ends."""
ONE_WAY = {"sends": (NOTHING, Manner()), "receives": (Manner(), NOTHING)}


async def leader_and_coordinator(cluster: Cluster, stage: str, topic: str) -> tuple[str, str]:
    """The broker that leads a topic, and the one that coordinates the stage's group."""
    client = AIOKafkaClient(bootstrap_servers=cluster.bootstrap)
    await client.bootstrap()
    try:
        name = topic_name(cluster.watch.crunch_id, topic)
        leader = (await client.fetch_all_metadata()).leader_for_partition(TopicPartition(name, PARTITION))
        coordinator = await client.coordinator_lookup(0, f"{cluster.watch.crunch_id}-{stage}")
        return BROKERS[leader - 1], BROKERS[coordinator - 1]
    finally:
        await client.close()


async def test_an_owner_that_cannot_reach_its_topic_leaves_the_stage_to_its_standby(cluster):
    """Its group's coordinator hears it all the time, so the group sees nothing wrong."""
    await cluster.decided("checkpoints", 2)
    stage_of = {role: stage for stage, role in reversed(WORKER_OF.items())}
    places = {
        role: await leader_and_coordinator(cluster, stage_of[role], TOPIC_OF_WORKER[role]) for role in PARTED
    }
    role = next((role for role, (leader, coordinator) in places.items() if leader != coordinator), "")
    assert role, "each of these topics has the leader that coordinates its group: start the test again"
    owner, topic = await cluster.owner(role), TOPIC_OF_WORKER[role]
    barred = Manner(never_to_or_from=[cluster.network.address(places[role][0])])
    outcome = await cluster.takeover(
        f"the {role} worker cannot reach the broker of {topic} alone",
        topic,
        lambda: cluster.network.carry([owner], barred),
    )
    assert await cluster.owner(role) != owner
    cluster.network.carry([owner], Manner())
    cluster.start_worker(*owner.split("-"))  # as its supervisor would: it has ended
    await cluster.decided("scores", 10)
    await hold_whole(cluster)
    assert (outcome.claim_seconds or 0) < PARTED_SECONDS_MAX


async def test_an_owner_whose_wire_carries_one_way_alone_is_taken_over(cluster):
    await cluster.decided("checkpoints", 2)
    taken_over = []
    for way, (out, back) in ONE_WAY.items():
        owner = await cluster.owner("score")
        fault = f"the host of the score worker only {'receives' if way == 'sends' else 'sends'}"
        outcome = await cluster.takeover(
            fault, "scores", lambda host=owner, out=out, back=back: cluster.network.carry([host], out, back)
        )
        taken_over.append(outcome.claim_seconds or 0)
        cluster.network.carry([owner], Manner())
        await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert max(taken_over) < TAKEOVER_SECONDS_MAX


async def test_a_broker_whose_wire_carries_one_way_alone_stops_no_stage(cluster):
    await cluster.decided("checkpoints", 2)
    seconds = []
    for way, (out, back) in ONE_WAY.items():
        leader, _ = await leader_and_coordinator(cluster, "score", "scores")
        fault = f"the host of the broker of scores only {'receives' if way == 'sends' else 'sends'}"
        outcome = await cluster.takeover(
            fault, "scores", lambda host=leader, out=out, back=back: cluster.network.carry([host], out, back)
        )
        seconds.append(outcome.decision_seconds)
        cluster.network.carry([leader], Manner())
        await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert max(seconds) < TAKEOVER_SECONDS_MAX
