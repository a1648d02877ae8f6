"""Computes the charge for a missing answer by the contract's policy, and the value of a round for newcomers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import msgspec

from coordinator.streams.events import RoundScoredData, Terms
from coordinator.streams.scores.units import mean_units

WORST_PERCENTILE = 10


def charge_of(values: Sequence[int], terms: Terms) -> int | None:
    """The charge in units for a model that did not answer by its own fault; None if the policy charges nothing.

    `values`: the scores of the round in units, in any order. The policies `zero` and `constant` charge a fixed score;
    `worst` the worst score of the round; `percentile` that percentile of the scores (nearest rank, from the worse end;
    `worst_percentile`: the 10th). The last three charge nothing if no model has a score. With the policy `scored` the
    contract's own function gave each model its charge, so this function is not called. So in a round without a truth,
    where nobody is scored, only `zero` and `constant` charge a model that was silent by its own fault.
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


def charged_again(data: RoundScoredData, value_field: str, terms: Terms) -> dict[str, Any]:
    """The columns of a round that is scored already, with what absence and failure cost by these terms."""
    values = [units for units in data.units.get(value_field, ()) if units is not None]
    charge = charge_of(values, terms)
    return {
        "models": data.models,
        "crunchers": data.crunchers,
        "units": data.units,
        "unscored": [
            msgspec.structs.replace(entry, charge_units=charge if entry.fault == "model" else None)
            for entry in data.unscored
        ],
        "reasons": data.reasons,
    }


def newcomers_value(values: Sequence[int], terms: Terms) -> int | None:
    """The value of a round for a model that had not joined: the worst score, or the median; None if no model has a
    score.

    With an even number of scores, the median is the mean of the two in the middle, rounded half to even.
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
