"""What a stake wins or burns in a round: the stake times the clipped score, for a `score_round` that gets stakes.

    won = stake_payout("7", context.stakes["7"], score=0.04, factor=0.5, clip=0.05)

`coordinator explain` shows each number of a payout that is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class StakePayout(msgspec.Struct, frozen=True):
    """One payout, with every number on the way."""

    model_id: str
    stake: float
    score: float
    factor: float
    clip: float
    product: float
    """factor * score"""
    clipped: float
    """The product, but not below -clip and not above clip."""
    payout: float
    """stake * clipped"""


_watched: ContextVar[list[StakePayout] | None] = ContextVar("watched_stake_payouts", default=None)


@contextmanager
def watched_stake_payouts() -> Iterator[list[StakePayout]]:
    """The payouts that are computed inside, in order: an explanation shows how a stake moved."""
    payouts: list[StakePayout] = []
    token = _watched.set(payouts)
    try:
        yield payouts
    finally:
        _watched.reset(token)


def stake_payout(model_id: str, stake: float, score: float, *, clip: float, factor: float = 1.0) -> float:
    """What the model's stake wins, or burns where it is below 0: stake * (factor * score, clipped to [-clip, clip]).

    Raises ValueError if `clip` is below 0.
    """
    if not clip >= 0:
        message = f"clip must be 0 or more: {clip}"
        raise ValueError(message)
    product = factor * score
    clipped = min(max(product, -clip), clip)
    payout = stake * clipped
    if (watched := _watched.get()) is not None:
        watched.append(StakePayout(model_id, stake, score, factor, clip, product, clipped, payout))
    return payout
