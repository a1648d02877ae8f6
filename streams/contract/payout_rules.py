"""Rules of a pool: they compute the part of the pool for each entry. A contract names one as the `rule` of a pool.

    Pool(rule=top(4))                                   # e**(1/place) over four places
    Pool(rule=top(10, alpha=0.5, over="present"))
    Pool(rule=in_proportion(above=0.1, power=2))        # the squared distance from 0.1
    Pool(rule=by_percentile(power=20))
    Pool(rule=by_softmax(beta=0.1))
    Pool(rule=my_rule)                                  # your own

A rule is a function `(entries) -> parts`. Its argument is the pool's entries, best first, as `payout.Entry` describes
them. It returns one part for each, in the same order: numbers of 0 or more that sum to at most 1. The rest of the pool
is retained. Entries of the same rank should get equal parts. Arithmetic is exact (`Fraction`) or correctly rounded
(`Decimal`), since a checkpoint is checked on other machines than the one that built it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import partial
from itertools import groupby
from typing import Any, Literal

__all__ = ["Entries", "Rule", "by_percentile", "by_softmax", "in_proportion", "top"]

Entries = Sequence[dict[str, Any]]
Rule = Callable[[Entries], Sequence[Any]]

PLACES_MAX = 10_000
ALPHA_MAX = 100.0
POWER_MAX = 100
BETA_MAX = 1e6
FAINT = -60
"""The exponent below which a weight counts as 0: e**-60 is 1e-26."""
_exact = Context(prec=30, rounding=ROUND_HALF_EVEN)


def top(places: int, *, alpha: float = 1.0, over: Literal["all", "present"] = "all") -> Rule:
    """The first `places` share the pool with the weights exp(alpha / place), place = 1, 2, ..

    `over="all"` divides by the weights of all places, so the part of a place without an entry is retained. `"present"`
    divides by the weights of the occupied places. Tied entries share the sum of their places equally; places after the
    last one have the weight 0. Raises ValueError if `places` is not in 1..10,000, or `alpha` not in -100..100 (0: all
    places have the same weight).

    Source: the rewards of Crunch's Synth and Numinous challenges (their `rewards_function` and `checkpoint_service`).
    """
    if not 1 <= places <= PLACES_MAX or int(places) != places:
        raise ValueError(f"places must be a whole number in 1..{PLACES_MAX}, not {places!r}")
    if not -ALPHA_MAX <= alpha <= ALPHA_MAX:
        raise ValueError(f"alpha must be in -{ALPHA_MAX:.0f}..{ALPHA_MAX:.0f}, not {alpha!r}")
    if over not in ("all", "present"):
        raise ValueError(f"over must be 'all' or 'present', not {over!r}")
    return partial(_top, places=int(places), alpha=float(alpha), over=over)


def in_proportion(
    *, above: float = 0.0, above_place: int | None = None, power: int = 1, part_min: float = 0.0
) -> Rule:
    """Parts in proportion to (distance from a baseline)**power, for the entries that are better than the baseline.

    The baseline is `above`, in the unit of the key. With `above_place=21` it is the key of the 21st best entry, or of
    the last one if there are fewer. If less is better, better is below the baseline. While the smallest part is below
    `part_min` (0..1), the last entry loses its part to the others. If no entry is better than the baseline, the whole
    pool is retained. `power` is in 1..100. Raises ValueError for any other argument.

    Sources: Numinous' re-forecast rule of 2026-08 (power 2, 21st place); Metaculus' tournaments (`take`, power 2).
    """
    if above != above or above in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is unequal to itself
        raise ValueError(f"above must be finite, not {above!r}")
    if above_place is not None and (not 1 <= above_place <= PLACES_MAX or above):
        raise ValueError(
            f"above_place must be in 1..{PLACES_MAX} and stand without above, not {above_place!r}"
        )
    if not 1 <= power <= POWER_MAX or int(power) != power:
        raise ValueError(f"power must be a whole number in 1..{POWER_MAX}, not {power!r}")
    if not 0 <= part_min <= 1:
        raise ValueError(f"part_min must be in 0..1, not {part_min!r}")
    return partial(
        _in_proportion,
        above=float(above),
        above_place=above_place,
        power=int(power),
        part_min=float(part_min),
    )


def by_percentile(*, power: int = 20) -> Rule:
    """Parts in proportion to (2 * (pct - 1/2))**power for the entries above the middle; the others get nothing.

    pct is the rank of an entry among n, counted from the worst (1) to the best (n), divided by n. Tied entries have the
    mean of their ranks. If no entry is above the middle, all is retained. Raises ValueError if `power` is not in
    1..100.

    Source: DataCrunch 2 (`reward.py` of crunchdao/competitions), power 20.
    """
    if not 1 <= power <= POWER_MAX or int(power) != power:
        raise ValueError(f"power must be a whole number in 1..{POWER_MAX}, not {power!r}")
    return partial(_by_percentile, power=int(power))


def by_softmax(*, beta: float = 1.0) -> Rule:
    """Parts in proportion to exp(beta * key), or exp(-beta * key) if less is better. Every entry gets a part.

    `beta` is per unit of the key (0: equal parts). A part below 1e-26 of the best part is 0. Raises ValueError if
    `beta` is not in 0..1,000,000.

    Source: the Synth subnet's weights (`compute_softmax` of its reward.py).
    """
    if not 0 <= beta <= BETA_MAX:
        raise ValueError(f"beta must be in 0..{BETA_MAX:.0f}, not {beta!r}")
    return partial(_by_softmax, beta=float(beta))


def _by_softmax(entries: Entries, *, beta: float) -> list[Fraction]:
    if not entries:
        return []
    best, weights = Decimal(repr(float(entries[0]["key"]))), []
    for entry in entries:
        behind = abs(_exact.subtract(Decimal(repr(float(entry["key"]))), best))
        exponent = _exact.multiply(Decimal(repr(-beta)), behind)
        weights.append(Fraction(_exact.exp(exponent)) if exponent > FAINT else Fraction(0))
    whole = sum(weights)
    return [weight / whole for weight in weights]


def _top(entries: Entries, *, places: int, alpha: float, over: str) -> list[Fraction]:
    weights = [place_weight(alpha, place) for place in range(1, places + 1)]
    whole = sum(weights if over == "all" else weights[: len(entries)])
    parts: list[Fraction] = []
    for _, tied in groupby(entries, key=lambda entry: entry["rank"]):
        size = len(list(tied))
        # Tied entries occupy `size` places from the next free one, and share the weights of these places equally.
        taken: Fraction = sum(weights[len(parts) : len(parts) + size], Fraction(0))
        parts += [taken / size / whole] * size
    return parts


def place_weight(alpha: float, place: int) -> Fraction:
    """exp(alpha / place), correctly rounded to 30 digits."""
    exponent = _exact.divide(Decimal(repr(float(alpha))), Decimal(place))
    return Fraction(_exact.exp(exponent))


def _in_proportion(
    entries: Entries, *, above: float, above_place: int | None, power: int, part_min: float
) -> list[Fraction]:
    if not entries:
        return []
    sign = -1 if entries[0]["direction"] == "asc" else 1
    baseline = key_of(entries[min(above_place, len(entries)) - 1]) if above_place else as_written(above)
    weights = [max(sign * (key_of(entry) - baseline), Fraction(0)) ** power for entry in entries]
    n_paid = sum(1 for weight in weights if weight)
    # Remove entries from the last upwards, and all tied ones together: the order among them means nothing. Each removal
    # makes the sum smaller, so the smallest part that is left is compared again.
    while n_paid and weights[n_paid - 1] < as_written(part_min) * sum(weights[:n_paid]):
        last = weights[n_paid - 1]
        while n_paid and weights[n_paid - 1] == last:
            n_paid -= 1
    whole = sum(weights[:n_paid])
    return [weight / whole if i < n_paid else Fraction(0) for i, weight in enumerate(weights)]


def _by_percentile(entries: Entries, *, power: int) -> list[Fraction]:
    weights = [max(2 * percentile - 1, Fraction(0)) ** power for percentile in percentiles(entries)]
    whole = sum(weights)
    return [weight / whole for weight in weights] if whole else weights


def percentiles(entries: Entries) -> list[Fraction]:
    """The rank of each entry, counted from the worst (1) to the best (n), divided by n: above 0, at most 1. Tied
    entries have the mean of their ranks.
    """
    n = len(entries)
    ranks: list[Fraction] = []
    for _, tied in groupby(entries, key=lambda entry: entry["rank"]):
        size = len(list(tied))
        first = n - len(ranks)  # the best of the tied entries has this rank, counted from the worst
        ranks += [Fraction(2 * first - size + 1, 2 * n)] * size
    return ranks


def key_of(entry: dict[str, Any]) -> Fraction:
    """The key of an entry, exactly as it is written."""
    return as_written(entry["key"])


def as_written(number: float) -> Fraction:
    """The number as it is written in decimals: 0.1 is exactly a tenth, not the nearest binary fraction."""
    return Fraction(Decimal(repr(float(number))))
