"""A stage's owner whose wire carries one way alone is taken over, and nothing is lost and nothing counts twice."""

from __future__ import annotations

from tests.hosts.cluster import (
    NEEDS_HOSTS,
    TAKEOVER_SECONDS_MAX,
    hold_whole,
)
from tests.hosts.wires import Manner

pytestmark = NEEDS_HOSTS
NOTHING = Manner(lost_share=1)
ONE_WAY = {"sends": (NOTHING, Manner()), "receives": (Manner(), NOTHING)}


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
