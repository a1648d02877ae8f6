"""Workers far from the brokers: wires that are slow.

Nothing is lost, nothing counts twice, decisions go on, and a host that is lost meanwhile is taken over in time. How much
later scores come is printed, and stands in `docs/how-to/scale.md`.
"""

from __future__ import annotations

import time
from statistics import quantiles

from tests.hosts.cluster import (
    NEEDS_HOSTS,
    TAKEOVER_SECONDS_MAX,
    TOPIC_OF_WORKER,
    WORKER_HOSTS,
    Cluster,
    hold_whole,
)
from tests.hosts.wires import Manner

pytestmark = NEEDS_HOSTS
MEASURED_ROUNDS = 30
FAR = "200 to 250 ms"
SLOW = {
    "5 to 7 ms": Manner(delay_ms=5, jitter_ms=2),
    "50 to 70 ms": Manner(delay_ms=50, jitter_ms=20),
    FAR: Manner(delay_ms=200, jitter_ms=50),
}


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


async def test_workers_far_from_the_brokers_are_later_and_lose_nothing(cluster):
    await cluster.decided("checkpoints", 2)
    await print_latency(cluster, "fast")
    taken_over = {}
    for delay, manner in SLOW.items():
        cluster.network.carry(WORKER_HOSTS, manner)
        await cluster.decided("scores", 10)
        await print_latency(cluster, f"of all workers {delay} each way")
        taken_over[delay] = [await lose(cluster, role, f"wires of {delay}") for role in ("score", "predict")]
    await hold_whole(cluster)
    # The last one is so far away that its round trips alone take longer.
    assert not [delay for delay in (*SLOW,)[:-1] if max(taken_over[delay]) > TAKEOVER_SECONDS_MAX]
