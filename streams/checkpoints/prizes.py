"""A checkpoint in money: whole micro-USDC per model. Pure.

One rule for what is paid and for what is corrected.
"""

from __future__ import annotations

from coordinator.streams.contract.emission import allocate
from coordinator.streams.contract.payout_amounts import money
from coordinator.streams.events import CheckpointData

TOTAL_PRIZE_MAX = 10**18
"""In whole micro-USDC."""


def prize_amounts(checkpoint: CheckpointData, total_prize: int) -> tuple[list[tuple[str, int]], int]:
    """([(model_id, micro-USDC)] by place, what the contract's rules retain): together exactly `total_prize`.

    By largest remainder; of a payout by rules it is of its exact parts, which are finer than shares.
    """
    if checkpoint.payout is not None:
        paid, retained = money(checkpoint.payout.pools, total_prize)
        return [(checkpoint.ranking[i].model_id, amount) for i, amount in paid.items()], retained
    # On a tie the better rank gets the odd unit, whatever order the emission lists them in.
    shares = sorted(
        (each["cruncher_index"], each["reward_pct"]) for each in checkpoint.emission["cruncher_rewards"]
    )
    units = allocate([share for _, share in shares], total_prize)
    return [(checkpoint.ranking[i].model_id, unit) for (i, _), unit in zip(shares, units, strict=True)], 0
