"""Workers far from the brokers: wires that are slow or lose packets.

Nothing is lost, nothing counts twice, decisions go on, and a host that is lost meanwhile is taken over in the time that
it has with fast wires; with those of 200 ms, in that time and the round trips of a takeover. How much later scores come is printed, and stands in
`docs/how-to/scale.md`.
"""

from __future__ import annotations

import time
from statistics import quantiles

import pytest
from tests.hosts.cluster import (
    NEEDS_HOSTS,
    TAKEOVER_SECONDS_MAX,
    TOPIC_OF_WORKER,
    WORKER_HOSTS,
    Cluster,
    hold_whole,
)
from tests.hosts.test_far_broker import ROUND_TRIPS_MAX
from tests.hosts.wires import Manner

pytestmark = NEEDS_HOSTS
MEASURED_ROUNDS = 30
LOST_SHARES = (0.01, 0.05)
FAR = Manner(delay_ms=100)
"""Of one broker, each way."""
SLOW = {
    "50 to 70 ms": Manner(delay_ms=50, jitter_ms=20),
    "200 to 250 ms": Manner(delay_ms=200, jitter_ms=50),
}
MORE_SECONDS = {"50 to 70 ms": 0.0, "200 to 250 ms": ROUND_TRIPS_MAX * 2 * 0.25}
"""What a takeover may need beyond TAKEOVER_SECONDS_MAX: nothing where the hosts are in one part of the world."""


async def print_latency(cluster: Cluster, wires: str) -> None:
    since_ms = time.time_ns() // 1_000_000
    await cluster.decided("scores", MEASURED_ROUNDS)
    latencies = await cluster.watch.score_latencies(since_ms)
    median, late = (quantiles(latencies, n=20)[which] for which in (9, 18))
    print(f"| {wires} | {median:.2f} s | {late:.2f} s | {len(latencies)} rounds |", flush=True)


async def lose(cluster: Cluster, role: str, wires: str) -> float:
    """Lose the host of a role's owner, which comes back with a new standby; gives when the stage was taken over."""
    owner = await cluster.owner(role)
    fault = f"the host of the {role} worker is lost, {wires}"
    outcome = await cluster.takeover(fault, TOPIC_OF_WORKER[role], lambda: cluster.network.lose(owner))
    cluster.network.mend(owner)
    cluster.start_worker(role, owner.removeprefix(f"{role}-"))
    await cluster.decided("scores", 20)
    assert outcome.claim_seconds is not None
    return outcome.claim_seconds


@pytest.mark.parametrize("delay", SLOW)
async def test_workers_far_from_the_brokers_are_later_and_lose_nothing(cluster, delay):
    await cluster.decided("checkpoints", 2)
    await print_latency(cluster, "fast")
    cluster.network.carry(WORKER_HOSTS, SLOW[delay])
    await cluster.decided("scores", 10)
    await print_latency(cluster, f"of all workers {delay} each way")
    taken_over = [await lose(cluster, role, f"wires of {delay}") for role in ("score", "predict")]
    await hold_whole(cluster)
    assert max(taken_over) <= TAKEOVER_SECONDS_MAX + MORE_SECONDS[delay]


@pytest.mark.parametrize("lost_share", LOST_SHARES)
async def test_wires_that_lose_packets_lose_no_record(cluster, lost_share):
    await cluster.decided("checkpoints", 2)
    cluster.network.carry(WORKER_HOSTS, Manner(lost_share=lost_share))
    await cluster.decided("scores", 10)
    what = f"{lost_share:.0%} of the packets lost"
    await print_latency(cluster, f"of all workers, {what}")
    taken_over = await lose(cluster, "score", what)
    await hold_whole(cluster)
    assert taken_over <= TAKEOVER_SECONDS_MAX


async def test_one_broker_that_is_far_makes_the_node_later_and_loses_nothing(cluster):
    await cluster.decided("checkpoints", 2)
    broker = await cluster.leader("scores")
    cluster.network.carry([broker], FAR)
    await cluster.decided("scores", 10)
    what = f"the leader of scores is {FAR.delay_ms:g} ms away"
    await print_latency(cluster, what)
    taken_over = await lose(cluster, "score", what)
    await hold_whole(cluster)
    assert taken_over <= TAKEOVER_SECONDS_MAX + ROUND_TRIPS_MAX * 2 * FAR.delay_ms / 1000
