"""Hosts are lost and cut off under load, one after the other.

The stage that lost its owner has to be taken over within TAKEOVER_SECONDS_MAX. In the end every input is scored once,
every checkpoint is computed again, and what a former owner wrote late counts nowhere. The tables that are printed here
and by `test_slow_wires.py` stand in `docs/how-to/scale.md`.
"""

from __future__ import annotations

from tests.hosts.cluster import BROKERS, NEEDS_HOSTS, TAKEOVER_SECONDS_MAX, TOPIC_OF_WORKER, hold_whole

pytestmark = NEEDS_HOSTS


async def test_a_stage_whose_host_is_lost_or_cut_off_is_taken_over_with_nothing_lost_and_nothing_twice(
    cluster,
):
    await cluster.decided("checkpoints", 2)
    outcomes = []
    for role, topic in TOPIC_OF_WORKER.items():
        owner = await cluster.owner(role)
        fault = f"the host of the {role} worker is lost"
        outcomes.append(await cluster.takeover(fault, topic, lambda host=owner: cluster.network.lose(host)))
        cluster.network.mend(owner)
        cluster.start_worker(*owner.split("-"))
        await cluster.decided("scores", 20)
    for role in ("score", "predict"):
        topic, owner = TOPIC_OF_WORKER[role], await cluster.owner(role)
        fault = f"the host of the {role} worker is cut off"
        outcomes.append(await cluster.takeover(fault, topic, lambda host=owner: cluster.network.cut(host)))
        cluster.network.mend(owner)  # it comes back, believing that the stage is its own
        await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert not [outcome for outcome in outcomes if (outcome.claim_seconds or 0) > TAKEOVER_SECONDS_MAX]


async def test_any_broker_can_be_lost_or_cut_off_with_nothing_lost_and_nothing_twice(cluster):
    await cluster.decided("checkpoints", 2)
    outcomes = []
    for broker in BROKERS:
        fault = f"the host of {broker} is lost"
        outcomes.append(
            await cluster.takeover(fault, "scores", lambda host=broker: cluster.network.lose(host))
        )
        await cluster.decided("scores", 20)
        cluster.network.mend(broker)
        cluster.start_broker(broker)
        await cluster.until(
            lambda name=broker: cluster.log(name).read_text().count("ready") > 1,
            f"{broker} does not come back",
        )
        await cluster.decided("scores", 40)
    for broker in BROKERS:
        fault = f"the host of {broker} is cut off"
        outcomes.append(
            await cluster.takeover(fault, "scores", lambda host=broker: cluster.network.cut(host))
        )
        await cluster.decided("scores", 20)
        cluster.network.mend(broker)
        await cluster.decided("scores", 40)
    await hold_whole(cluster)
    assert not [outcome for outcome in outcomes if outcome.decision_seconds > TAKEOVER_SECONDS_MAX]
