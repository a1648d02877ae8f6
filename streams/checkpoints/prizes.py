"""A checkpoint in money: whole micro-USDC of each model.

Takes a recorded checkpoint and the size of the pool. What is paid, what a correction states and what the audit checks
are all computed here, so the three cannot differ. Pure.
"""

from __future__ import annotations

import hashlib

import msgspec

from coordinator.streams.contract.emission import allocate
from coordinator.streams.contract.payout_amounts import money
from coordinator.streams.events import CheckpointData, CheckpointShares

TOTAL_PRIZE_MAX = 10**18
"""In whole micro-USDC."""


def shares_of(checkpoint: CheckpointData) -> CheckpointShares:
    """What the amounts of a checkpoint follow from."""
    # No amount follows from the reasons in `unpaid`. A read model sorts them, so their order would change the hash.
    pools = [
        msgspec.structs.replace(pool, unpaid={})
        for pool in (() if checkpoint.payout is None else checkpoint.payout.pools)
    ]
    # `allocate` gives the odd units on a tie to the earlier entry. So the entries are sorted by place: otherwise the
    # order of the emission's list would decide who gets a unit more.
    rewards = sorted(
        (reward["cruncher_index"], reward["reward_pct"]) for reward in checkpoint.emission["cruncher_rewards"]
    )
    return CheckpointShares(
        model_ids=[entry.model_id for entry in checkpoint.ranking],
        rewards=[] if checkpoint.payout is not None else rewards,
        pools=pools,
    )


def shares_sha256(shares: CheckpointShares) -> str:
    """The hash of all of them. A stage that keeps it can tell a true statement of the shares from a false one."""
    return hashlib.sha256(msgspec.json.encode(shares)).hexdigest()


def prize_amounts(checkpoint: CheckpointData, total_prize: int) -> tuple[list[tuple[str, int]], int]:
    """([(model_id, micro-USDC)] by place, micro-USDC that the contract's rules retain). They sum to exactly
    `total_prize`.
    """
    return amounts_of(shares_of(checkpoint), total_prize)


def amounts_of(shares: CheckpointShares, total_prize: int) -> tuple[list[tuple[str, int]], int]:
    """As `prize_amounts`. The pool is divided by the largest remainder.

    A payout by rules is divided by its exact parts, because a share of the emission is rounded to a billionth already.
    """
    if shares.pools:
        paid, retained = money(shares.pools, total_prize)
        return [(shares.model_ids[place], amount) for place, amount in paid.items()], retained
    amounts = allocate([share for _, share in shares.rewards], total_prize)
    return [
        (shares.model_ids[place], amount) for (place, _), amount in zip(shares.rewards, amounts, strict=True)
    ], 0
