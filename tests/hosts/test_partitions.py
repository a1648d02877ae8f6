"""Wires that are cut in part: the stage is taken over, nothing is lost and nothing counts twice.

A wire that carries one way alone; and an owner that cannot reach the broker which leads its topic, but can reach others.
"""

from __future__ import annotations

from tests.hosts.cluster import BROKERS, NEEDS_HOSTS, TAKEOVER_SECONDS_MAX, hold_whole
from tests.hosts.wires import Manner

pytestmark = NEEDS_HOSTS
NOTHING = Manner(lost_share=1)
PARTED_SECONDS_MAX = 1.5 * 10.0
"""So long an owner tries to claim its stage again, while its group hears it: one and a half sessions."""
ONE_WAY = {"receives": (NOTHING, Manner()), "sends": (Manner(), NOTHING)}
"""What a host still does -> (its wire's way out, its way back)"""


async def test_an_owner_whose_wire_carries_only_one_way_is_taken_over(cluster):
    await cluster.decided("checkpoints", 2)
    taken_over = []
    for way, (out, back) in ONE_WAY.items():
        owner = await cluster.owner("score")
        fault = f"the host of the score worker only {way}"
        outcome = await cluster.takeover(
            fault, "scores", lambda host=owner, out=out, back=back: cluster.network.carry([host], out, back)
        )
        taken_over.append(outcome.claim_seconds or 0)
        cluster.network.carry([owner], Manner())
        await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert max(taken_over) < TAKEOVER_SECONDS_MAX


async def test_an_owner_that_cannot_reach_the_leader_of_its_topic_leaves_the_stage_to_its_standby(cluster):
    """Its group may still hear it. Then its session does not end, and it has to give up by itself."""
    await cluster.decided("checkpoints", 2)
    owner, leader = await cluster.owner("score"), await cluster.leader("scores")
    parted = Manner(never_to_or_from=[cluster.network.address(leader)])
    outcome = await cluster.takeover(
        f"the host of the score worker is parted from {leader}, which leads its topic",
        "scores",
        lambda: cluster.network.carry([owner], parted),
    )
    cluster.network.carry([owner], Manner())
    assert await cluster.owner("score") != owner
    await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert (outcome.claim_seconds or 0) < PARTED_SECONDS_MAX + 2 * TAKEOVER_SECONDS_MAX


async def test_a_broker_that_only_receives_or_only_sends_is_replaced_as_leader(cluster):
    await cluster.decided("checkpoints", 2)
    outcomes = []
    for way, (out, back) in ONE_WAY.items():
        leader = await cluster.leader("scores")
        fault = f"the host of {leader}, a leader, only {way}"
        outcomes.append(
            await cluster.takeover(
                fault,
                "scores",
                lambda host=leader, out=out, back=back: cluster.network.carry([host], out, back),
            )
        )
        await cluster.decided("scores", 20)
        cluster.network.carry(BROKERS, Manner())
        await cluster.decided("scores", 40)
    await hold_whole(cluster)
    assert max(outcome.decision_seconds for outcome in outcomes) < 2 * TAKEOVER_SECONDS_MAX
