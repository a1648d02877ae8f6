"""Makes the emission of a checkpoint: shares as integers that sum to exactly 1,000,000,000.

Pure. All shares are made by one exact allocator (largest remainder, or Hamilton's method), so that nothing is lost by
rounding, and the same ranks always give the same shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from itertools import groupby, pairwise
from math import lcm
from typing import Any

import msgspec

from coordinator.streams.addresses import is_pubkey

FRAC64_ONE = 1_000_000_000
"""The whole pool in the protocol's unit frac64: integer billionths."""
FRAC64_PER_PERCENT = FRAC64_ONE // 100
PARTS = 10**18
"""The number of parts of a payout's pool: a thousand for each micro-USDC of a billion USDC."""

TIERS_PERCENT = (35, 10, 10, 10, 10, 5, 5, 5, 5, 5)
ENTRIES_MAX = 65_536  # cruncher_index fits 16 bits
_encoder = msgspec.json.Encoder(order="deterministic")


class Allocation(msgspec.Struct, frozen=True):
    """How `total` is shared out by largest remainder. Column i of each list is that of weight i.

    Weight i is `numbers[i]` of `whole`; its floor is numbers[i] * total // whole, its rest that modulo `whole`.
    """

    total: int
    whole: int
    numbers: list[int]
    floors: list[int]
    rests: list[int]
    shares: list[int]

    @property
    def left(self) -> int:
        """The number of units that the floors leave. Each of the largest rests gets one of them."""
        return self.total - sum(self.floors)


_watched: ContextVar[list[Allocation] | None] = ContextVar("watched_allocations", default=None)


@contextmanager
def watched_allocations() -> Iterator[list[Allocation]]:
    """What `allocate` is asked for inside, in order: an explanation shows how a contract came to its shares."""
    allocations: list[Allocation] = []
    token = _watched.set(allocations)
    try:
        yield allocations
    finally:
        _watched.reset(token)


def allocate(weights: Sequence[Fraction | int], total: int = FRAC64_ONE) -> list[int]:
    """Integers in proportion to `weights` that sum to exactly `total`.

    Each entry gets its exact share, rounded down. What is left is given by ones to the largest fractional parts; of
    equal ones the earlier entry comes first. An empty list gives an empty list. Raises ValueError if a weight is
    negative or all are 0.
    """
    if not weights:
        return []
    result = allocation(weights, total)
    if (watched := _watched.get()) is not None:
        watched.append(result)
    return result.shares


def allocation(weights: Sequence[Fraction | int], total: int) -> Allocation:
    """As `allocate`, with every number on the way. Raises ValueError for no weights, too."""
    # Calculate with integers over a common denominator: ten thousand divisions of fractions would take much longer.
    common = lcm(*{weight.denominator for weight in weights})
    numbers = [weight.numerator * (common // weight.denominator) for weight in weights]
    whole = sum(numbers)
    if whole <= 0 or min(numbers) < 0:
        message = "weights must be >= 0 and not all 0"
        raise ValueError(message)
    floors, rests = map(list, zip(*(divmod(number * total, whole) for number in numbers), strict=True))
    shares = list(floors)
    left = total - sum(shares)
    # The sort is stable, so of equal fractional parts the earlier entry stays first.
    for i in sorted(range(len(rests)), key=rests.__getitem__, reverse=True)[:left]:
        shares[i] += 1
    return Allocation(total, whole, numbers, floors, rests, shares)


def tier_shares(ranks: Sequence[int], total: int = FRAC64_ONE) -> list[int]:
    """The frac64 of each entry by the default tiers. `ranks` ascend; equal ranks are tied.

    The place of an entry is its position. Tied entries share the sum of their places equally. With fewer than ten
    entries, the tiers that no place has are shared equally by all. Raises ValueError if the ranks do not ascend.
    """
    if any(after < before for before, after in pairwise(ranks)):
        message = f"ranks must ascend: {list(ranks)[:20]}"
        raise ValueError(message)
    n = len(ranks)
    if n == 0:
        return []
    unclaimed = Fraction(100 - sum(TIERS_PERCENT[:n]), n)
    weights: list[Fraction] = []
    for _, tied in groupby(ranks):
        size = len(list(tied))
        place = len(weights)
        claimed = Fraction(sum(TIERS_PERCENT[place : place + size]), size)
        weights += [claimed + unclaimed] * size
    return allocate(weights, total)


def emission_of(
    shares: Mapping[int, int], crunch: str | None, compute: str | None, data: str | None
) -> dict[str, Any]:
    """The emission of these shares (position in the ranking -> frac64). A provider gets all of its own pool."""
    return {
        "crunch": crunch or "",
        "cruncher_rewards": [
            {"cruncher_index": i, "reward_pct": share} for i, share in shares.items() if share
        ],
        "compute_provider_rewards": [{"provider": compute, "reward_pct": FRAC64_ONE}] if compute else [],
        "data_provider_rewards": [{"provider": data, "reward_pct": FRAC64_ONE}] if data else [],
    }


def emission_faults(emission: dict[str, Any], entries: int, total: int = FRAC64_ONE) -> list[str]:
    """Why this emission may not be offered for payment; empty if it may. Stricter than all that is known of the chain.

    `entries`: the length of the ranking. `total`: the sum that the shares of crunchers must have. It is below
    1,000,000,000 only if the contract's rules retain a share.
    """
    faults: list[str] = []
    if not is_pubkey(emission["crunch"]):
        faults.append("crunch_pubkey is not a base58 public key of 32 bytes; set it in the contract")
    rewards = emission["cruncher_rewards"]
    shares = [reward["reward_pct"] for reward in rewards]
    indexes = [reward["cruncher_index"] for reward in rewards]
    if not rewards:
        faults.append("no cruncher rewards")
    if any(type(share) is not int or not 0 < share <= FRAC64_ONE for share in shares):
        faults.append("a share is not an integer in 1..1000000000")
    elif rewards and sum(shares) != total:
        faults.append(f"cruncher rewards sum to {sum(shares)}, not to {total}")
    if len(set(indexes)) != len(indexes) or any(not 0 <= i < min(entries, ENTRIES_MAX) for i in indexes):
        faults.append("a cruncher_index is no distinct position in the ranking")
    for pool in ("compute_provider_rewards", "data_provider_rewards"):
        providers = [reward["provider"] for reward in emission[pool]]
        if providers and sum(reward["reward_pct"] for reward in emission[pool]) != FRAC64_ONE:
            faults.append(f"{pool} do not sum to {FRAC64_ONE}")
        if len(set(providers)) != len(providers) or not all(is_pubkey(provider) for provider in providers):
            faults.append(f"{pool}: providers must be distinct public keys")
    return faults


def emission_sha256(emission: dict[str, Any]) -> str:
    """The hash of the emission's canonical JSON (sorted keys, no blanks). It proves which emission was offered."""
    return hashlib.sha256(_encoder.encode(emission)).hexdigest()
