"""Emission strategies: they compute the shares of a ranking. A contract names one as its `build_emission`.

    CrunchContract(build_emission=tiers)                    # the default
    CrunchContract(build_emission=proportional(above=0.1))
    CrunchContract(build_emission=softmax(beta=4))
    CrunchContract(build_emission=floored(tiers, share_min=0.001))
    CrunchContract(build_emission=by_weights(my_weights))   # your own: a weight for each ranked entry

A strategy reads the ranked entries and computes a weight for each. `emission.allocate` makes integers of the weights
that sum to exactly 1,000,000,000. Tied entries have equal weights. Weights are computed by exact or correctly rounded
decimal arithmetic: `math.exp` differs between machines in the last digit, and a checkpoint is checked on other machines
than the one that built it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from coordinator.streams.contract.defaults import build_emission as tiers
from coordinator.streams.contract.emission import FRAC64_ONE, allocate, emission_of
from coordinator.streams.log.finite import plain

__all__ = ["Entries", "Strategy", "by_weights", "floored", "proportional", "softmax", "tiers"]

Entries = Sequence[dict[str, Any]]
"""Ranked entries, best first: `model_id`, `player`, `rank` (equal rank means tied), `key` (the number that
they are ranked by), `keys`, `counts`, .. as `Payout.pools` describes them."""
Strategy = Callable[..., dict[str, Any]]
"""(ranked_entries, crunch_pubkey, compute_provider, data_provider) -> the emission's fields."""

BETA_MAX = 1e6
_DIGITS = 30
_FAINT = -60
"""The exponent below which a weight counts as 0: e**-60 of the best weight is 1e-26, and the least share is 1e-9."""
_exact = Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN)


def proportional(above: float = 0.0) -> Strategy:
    """Shares in proportion to the distance of an entry's key from `above`; an entry that is not better gets nothing.

    Better is more if the ranking descends, and less if it ascends (with an error as key, `above` is the error of a
    baseline). If no entry is better than `above`, the period is paid by tiers. Raises ValueError if `above` is not
    finite.
    """
    _finite("above", above)
    return partial(_proportional, above=float(above))


def softmax(beta: float = 1.0) -> Strategy:
    """Shares in proportion to exp(beta * key), or exp(-beta * key) if less is better.

    `beta` is per unit of the key: 0 gives equal shares, a large value pays only the best. Raises ValueError if it is
    not in [0, 1,000,000].
    """
    _finite("beta", beta)
    if not 0 <= beta <= BETA_MAX:
        message = f"beta must be in 0..{BETA_MAX:.0f}, not {beta!r}"
        raise ValueError(message)
    return partial(_softmax, beta=float(beta))


def by_weights(weigh: Callable[[Entries], Sequence[float | Fraction | Decimal]]) -> Strategy:
    """Shares by your own function: it returns one number >= 0 for each entry, in their order, not all 0.

    A wrong number of weights, a negative weight or one that is not finite raises ValueError when the checkpoint is
    built, and the checkpoint is withheld with that reason. Use exact or correctly rounded arithmetic, so that others
    compute the same shares.
    """
    return partial(_by_weights, weigh=weigh)


def floored(strategy: Strategy, share_min: float) -> Strategy:
    """The shares of another strategy, without those below `share_min` of the pool. What these would have got goes to
    the others in proportion. If no share reaches `share_min`, all stay as they are.

    Raises ValueError if `share_min` is not in [0, 1].
    """
    _finite("share_min", share_min)
    if not 0 <= share_min <= 1:
        message = f"share_min must be in 0..1, not {share_min!r}"
        raise ValueError(message)
    return partial(_floored, strategy=strategy, share_min=share_min)


def _floored(
    ranked_entries: Entries,
    crunch_pubkey: str | None,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    strategy: Strategy,
    share_min: float,
) -> dict[str, Any]:
    built = strategy(ranked_entries, crunch_pubkey, compute_provider, data_provider)
    shares_paid = {reward["cruncher_index"]: reward["reward_pct"] for reward in built["cruncher_rewards"]}
    of_rank: dict[int, list[int]] = {}
    for i, entry in enumerate(ranked_entries):
        of_rank.setdefault(entry["rank"], []).append(shares_paid.get(i, 0))
    # Compare the mean share of a rank and not that of an entry: rounding may have given one of two tied entries a unit
    # more, and the limit must not separate them.
    means = {place: Fraction(sum(shares), len(shares)) for place, shares in of_rank.items()}
    weights = [means[entry["rank"]] for entry in ranked_entries]
    weights_left = [
        weight if weight >= _fraction(share_min) * FRAC64_ONE else Fraction(0) for weight in weights
    ]
    if not any(weights_left):
        return built
    rewards = [
        {"cruncher_index": i, "reward_pct": share} for i, share in enumerate(allocate(weights_left)) if share
    ]
    return {**built, "cruncher_rewards": rewards}


def _proportional(
    ranked_entries: Entries,
    crunch_pubkey: str | None,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    above: float = 0.0,
) -> dict[str, Any]:
    sign = _direction(ranked_entries)
    weights = [max(sign * (_key(entry) - _fraction(above)), Fraction(0)) for entry in ranked_entries]
    if not any(weights):
        return tiers(ranked_entries, crunch_pubkey, compute_provider, data_provider)
    return _emission(weights, crunch_pubkey, compute_provider, data_provider)


def _softmax(
    ranked_entries: Entries,
    crunch_pubkey: str | None,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    beta: float = 1.0,
) -> dict[str, Any]:
    sign, factor = _direction(ranked_entries), Decimal(repr(beta))
    goodness = [sign * Decimal(repr(entry["key"])) for entry in ranked_entries]
    # Exponents are relative to the best key, so the largest weight is 1 and none overflows.
    best = max(goodness, default=Decimal(0))
    weight_of: dict[Decimal, int] = {}
    weights: list[Fraction | int] = []
    for number in goodness:
        if number not in weight_of:
            exponent = _exact.multiply(factor, _exact.subtract(number, best))
            weight_of[number] = int(_exact.exp(exponent).scaleb(_DIGITS)) if exponent > _FAINT else 0
        weights.append(weight_of[number])
    return _emission(weights, crunch_pubkey, compute_provider, data_provider)


def _by_weights(
    ranked_entries: Entries,
    crunch_pubkey: str | None,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    weigh: Callable[[Entries], Sequence[float | Fraction | Decimal]],
) -> dict[str, Any]:
    numbers = list(weigh(ranked_entries))
    if len(numbers) != len(ranked_entries):
        message = f"{len(numbers)} weights for {len(ranked_entries)} entries"
        raise ValueError(message)
    weights = [_weight(i, number) for i, number in enumerate(numbers)]
    return _emission(weights, crunch_pubkey, compute_provider, data_provider)


def _emission(
    weights: Sequence[Fraction | int], crunch: str | None, compute: str | None, data: str | None
) -> dict[str, Any]:
    return emission_of(dict(enumerate(allocate(weights))), crunch, compute, data)


def _direction(entries: Entries) -> int:
    """1 if more is better, -1 if less is. The entries are sorted best first; if all keys are equal it is 1."""
    return -1 if entries and _key(entries[0]) < _key(entries[-1]) else 1


def _key(entry: dict[str, Any]) -> Fraction:
    return _fraction(entry["key"])


def _fraction(number: float) -> Fraction:
    """The number as it is written in decimals: 0.1 is exactly a tenth, not the nearest binary fraction."""
    return Fraction(Decimal(repr(float(number))))


def _weight(i: int, number: float | Fraction | Decimal) -> Fraction:
    try:
        return Fraction(number if isinstance(number, (int, float, Fraction, Decimal)) else plain(number))
    except (TypeError, ValueError, OverflowError) as error:
        message = f"weight {i} is no finite number: {number!r}"
        raise ValueError(message) from error


def _finite(name: str, value: float) -> None:
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is the only value unequal to itself
        message = f"{name} must be finite, not {value!r}"
        raise ValueError(message)
