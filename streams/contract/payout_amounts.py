"""Computes the amounts of a payout from its pools: shares in frac64 for the chain, and whole units of money.

Reads the pools that `payout.py` computed from a ranking. Every function returns integers that, with the retained
amount, sum exactly to the total: nothing is lost or created by rounding. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coordinator.streams.contract.emission import FRAC64_ONE, allocate
from coordinator.streams.contract.payout import Payout
from coordinator.streams.events import PayoutData, PoolPaid


def frac64_shares(pools: Sequence[PoolPaid]) -> tuple[dict[int, int], int]:
    """(position in the ranking -> frac64, the retained amount): together exactly 1,000,000,000.

    The total is divided among the pools in proportion to their weights, then each pool among its paid models and its
    retained part. Both divisions are by largest remainder.
    """
    return _summed(pools, allocate([pool.weight for pool in pools]), FRAC64_ONE)


def money(pools: Sequence[PoolPaid], total: int) -> tuple[dict[int, int], int]:
    """(position in the ranking -> whole units, the retained amount): together exactly `total` (>= 0).

    As `frac64_shares`, but the amount of each pool is rounded down to a unit, and the rest is retained.
    """
    whole = sum(pool.weight for pool in pools)
    return _summed(pools, [total * pool.weight // whole for pool in pools], total)


def pool_amounts(pool: PoolPaid, total: int) -> tuple[list[int], int]:
    """(units of each model in `pool.paid`, the retained amount): together exactly `total`."""
    *amounts, retained = allocate([*(parts for _, _, parts in pool.paid), pool.retained_parts], total)
    return amounts, retained


def _summed(pools: Sequence[PoolPaid], totals: Sequence[int], whole: int) -> tuple[dict[int, int], int]:
    """(position -> amount over all pools, the retained amount). A model may be paid by several pools."""
    amount_of: dict[int, int] = {}
    for pool, total in zip(pools, totals, strict=True):
        amounts, _ = pool_amounts(pool, total)
        for (i, _, _), amount in zip(pool.paid, amounts, strict=True):
            amount_of[i] = amount_of.get(i, 0) + amount
    paid = {i: amount for i, amount in sorted(amount_of.items()) if amount}
    # The retained amount is what is not paid. So the two sum to `whole`, whatever the pools were rounded to.
    return paid, whole - sum(paid.values())


def on_chain(
    payout: Payout, pools: list[PoolPaid], entries: Sequence[dict[str, Any]]
) -> tuple[dict[int, int], PayoutData]:
    """(position in the ranking -> frac64 on chain, the payout as it is recorded).

    `payout.retained` says what happens to the retained share. `entries` is the ranking. Raises ValueError if the share
    should be given to paid models and there are none, or to a model that is not ranked.
    """
    shares, retained = frac64_shares(pools)
    what: Literal["none", "withheld", "left", "shared_out", "taken"] = "none"
    if not retained:
        pass
    elif payout.retained == "withhold":
        what = "withheld"
    elif payout.retained == "prizes_only":
        what = "left"
    elif payout.retained == "share_out":
        what = "shared_out"
        if not shares:
            raise ValueError("nobody is paid whom the retained share could be shared out to")
        shares = dict(zip(shares, allocate(list(shares.values())), strict=True))
    else:
        what = "taken"
        wanted = payout.retained.model_id
        taker = next((i for i, entry in enumerate(entries) if entry["model_id"] == wanted), None)
        if taker is None:
            raise ValueError(f"model {wanted}, who takes the retained share, is not ranked")
        shares = dict(sorted((shares | {taker: shares.get(taker, 0) + retained}).items()))
    return shares, PayoutData(pools=pools, retained_frac64=retained, retained_is=what)
