"""Thousands of random crashes between the opening and the payment of checkpoints: each is settled once, and none is
forgotten.
"""

from __future__ import annotations

from collections import Counter

import pytest
from tests.chain.settlement_world import World

from coordinator.infra.chain.fake import transaction_hash

STEPS = 160


def live_settlements(world):
    return Counter(
        settlement.checkpoint_id for settlement in world.chain.settlements.values() if not settlement.fails
    )


@pytest.mark.parametrize("many", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_random_crashes_never_cause_two_settlements_and_forget_none(many):
    crashes = worlds = failed = offered = 0
    while crashes < many:
        world = World(worlds, crash_share=0.12)
        for _ in range(STEPS):
            world.step()
        crashes += world.crashes.count
        worlds += 1
        assert world.settle(), (worlds - 1, world.style, [(r.status, r.tx_hash) for r in world.view.newest()])
        world.check_offers()
        settled = live_settlements(world)
        offered += len(world.view.offered_again)
        for the_id, row in world.view.rows.items():
            assert settled[the_id] == 1, (worlds - 1, the_id)
            assert not world.chain.settlements[row.tx_hash].fails
            assert world.chain.settlements[row.tx_hash].checkpoint_id == the_id
            failed += sum(status == "SUBMITTED" for status, _ in row.moves) > 1
    print(
        f"{crashes} crashes in {worlds} runs; {failed} checkpoints were settled again after a final failure"
    )
    assert failed > many // 100  # the way back to PENDING was taken often


@pytest.mark.parametrize("seed", range(6))
def test_without_a_crash_or_a_fault_every_checkpoint_is_paid_at_once(seed):
    world = World(seed, crash_share=0.0)
    assert world.settle()
    assert set(live_settlements(world).values()) == {1}


def test_the_world_notices_a_second_settlement():
    world = World(0, crash_share=0.0)
    world.accept(transaction_hash("1"), "ckp", fails=False)
    world.accept(transaction_hash("2"), "ckp", fails=True)
    with pytest.raises(AssertionError, match="two settlements"):
        world.accept(transaction_hash("3"), "ckp", fails=False)


def test_an_operator_who_does_not_wait_for_a_look_at_the_chain_does_settle_twice():
    """This is the purpose of the rule: without it the same world finds a second settlement."""

    def impatient() -> None:
        for seed in range(1, 300, 3):  # web
            world = World(seed, crash_share=0.12)
            for _ in range(STEPS):
                world.last_attempt = float("-inf")
                world.step()

    with pytest.raises(AssertionError, match="two settlements"):
        impatient()
