"""A checkpoint in money: whole micro-USDC of each model.

Takes a recorded checkpoint and the size of the pool. What is paid, what a correction states and what the audit checks
are all computed here, so the three cannot differ. Pure.
"""

from __future__ import annotations

from coordinator.streams.contract.emission import allocate
from coordinator.streams.contract.payout_amounts import money
from coordinator.streams.events import CheckpointData

TOTAL_PRIZE_MAX = 10**18
"""In whole micro-USDC."""


def prize_amounts(checkpoint: CheckpointData, total_prize: int) -> tuple[list[tuple[str, int]], int]:
    """([(model_id, micro-USDC)] by place, micro-USDC that the contract's rules retain). They sum to exactly
    `total_prize`.

    The pool is divided by the largest remainder. A payout by rules is divided by its exact parts, because a share of
    the emission is rounded to a billionth already.
    """
    if checkpoint.payout is not None:
        paid, retained = money(checkpoint.payout.pools, total_prize)
        return [(checkpoint.ranking[place].model_id, amount) for place, amount in paid.items()], retained
    # `allocate` gives the odd units on a tie to the earlier entry. So the entries are sorted by place: otherwise the
    # order of the emission's list would decide who gets a unit more.
    shares = sorted(
        (reward["cruncher_index"], reward["reward_pct"]) for reward in checkpoint.emission["cruncher_rewards"]
    )
    amounts = allocate([share for _, share in shares], total_prize)
    return [
        (checkpoint.ranking[place].model_id, amount)
        for (place, _), amount in zip(shares, amounts, strict=True)
    ], 0
