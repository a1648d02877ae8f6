"""What a missing answer costs by the declared policy. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from coordinator.streams.events import Terms
from coordinator.streams.scores.units import mean_units

WORST_PERCENTILE = 10


def charge_of(values: Sequence[int], terms: Terms) -> int | None:
    """The charge in units for whoever is missing by its model's fault; None where there is none.

    `values` are the round's scores in units, in any order. `zero` and `constant` cost a score of that size; `worst` the
    round's worst score, `percentile` that percentile (nearest rank, from the worse end; `worst_percentile`: the 10th),
    nothing when nobody scored. `scored` is not asked here: the contract gave each its own.
    """
    match terms.absence_policy:
        case "zero":
            return 0
        case "constant":
            return terms.absence_units
        case "worst" if values:
            return (max if terms.ranking_direction == "asc" else min)(values)
        case "worst_percentile" if values:
            return _from_worse_end(values, Fraction(WORST_PERCENTILE), terms)
        case "percentile" if values:
            return _from_worse_end(values, Fraction(repr(terms.absence_percent)), terms)
        case _:
            return None


def newcomers_value(values: Sequence[int], terms: Terms) -> int | None:
    """What a round is worth to a model that had not joined: its worst score, or the median (of two in the middle their
    mean, half-even); None where nobody scored.
    """
    if not values:
        return None
    if terms.newcomer_past == "worst":
        return (max if terms.ranking_direction == "asc" else min)(values)
    ascending = sorted(values)
    middle = len(ascending) // 2
    return (
        ascending[middle] if len(ascending) % 2 else mean_units(ascending[middle - 1] + ascending[middle], 2)
    )


def _from_worse_end(values: Sequence[int], percent: Fraction, terms: Terms) -> int:
    worst_first = sorted(values, reverse=terms.ranking_direction == "asc")
    return worst_first[ceil(len(worst_first) * percent / 100) - 1]
