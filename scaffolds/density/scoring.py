"""How a round of densities is scored: the function that the node itself calls.

An answer is a list of densities, one for each step, of how much the price changes within that step, in basis points
(1e-4 of the price). A density is a mixture of at most three normal ones. Its error is the CRPS, the integral of
(F(x) - 1[x >= what happened])^2 over all x: less is better, and it is least for whoever says the true chances.
A round's errors then become scores from 0 to 1. Only the standard library is used, so that a participant can run it
anywhere.

The CRPS of a mixture of normals in closed form: Grimit, Gneiting, Berrocal and Johnson, "The continuous ranked
probability score for circular variables and its application to mesoscale forecast ensemble verification", Quarterly
Journal of the Royal Meteorological Society 132 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

WORST_SHARE = 0.05
"""This share of a round's answers, the worst ones, has a score of 0."""
MEDIANS_MAX = 2.0
"""So has an error of so many times the round's median: one absurd answer must not make all others look alike."""

Mixture = Sequence[tuple[float, float, float]]
"""(weight > 0, loc, scale > 0) of each component; weights need not sum to 1. Locs and scales are in basis points."""


def crps(mixture: Mixture, change: float) -> float:
    """The error of one density, in basis points, at least 0; `change` is what happened, in basis points."""
    total = sum(weight for weight, _, _ in mixture)
    distance = spread = 0.0
    for weight, loc, scale in mixture:
        distance += weight * _mean_distance(change - loc, scale)
        spread += weight * weight * _mean_distance(0.0, scale * math.sqrt(2.0))
    for (weight, loc, scale), (weight_2, loc_2, scale_2) in combinations(mixture, 2):
        spread += 2.0 * weight * weight_2 * _mean_distance(loc - loc_2, math.hypot(scale, scale_2))
    return max(0.0, distance / total - spread / (2.0 * total * total))


def _mean_distance(loc: float, scale: float) -> float:
    """The mean of |X| for a normal X."""
    z = loc / scale
    return scale * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * z * z) + loc * math.erf(z / math.sqrt(2.0))


def error(mixtures: Sequence[Mixture], changes: Sequence[float]) -> float:
    """The error of one answer: the mean of the CRPS of its steps."""
    return sum(map(crps, mixtures, changes)) / len(changes)


def relative(errors: Sequence[float | None]) -> list[float | None]:
    """A score in [0, 1] for each error of a round: 1 for the least, 0 for the worst 5 %, linear between.

    0 begins at the 95th percentile (nearest rank: with fewer than 20 answers the worst one), and at twice the median
    where that is less. Where all errors are the same, all score 1. None, for no answer, stays None.
    """
    ascending = sorted(value for value in errors if value is not None)
    if not ascending:
        return list(errors)
    best, percentile = ascending[0], ascending[math.ceil((1.0 - WORST_SHARE) * len(ascending)) - 1]
    worst = min(percentile, MEDIANS_MAX * median(ascending))
    width = worst - best
    return [
        None if value is None else 1.0 if width == 0.0 else min(1.0, max(0.0, (worst - value) / width))
        for value in errors
    ]


def score_round(answers: Any, truth: Any, context: Any) -> dict[str, list[float]]:  # noqa: ARG001 - how a node calls it
    """What the node calls: everybody's score in one round; NaN for who gave no answer.

    `answers.outputs` are the answers, None for none; `truth.changes` is what happened in each step.
    """
    errors = [
        None if output is None else error(_mixtures(output), truth.changes) for output in answers.outputs
    ]
    as_numbers = {"value": relative(errors), "error": errors}
    return {
        name: [math.nan if number is None else number for number in column]
        for name, column in as_numbers.items()
    }


def _mixtures(output: Any) -> list[Mixture]:
    return [
        [(part.weight, part.density.params.loc, part.density.params.scale) for part in step.components]
        for step in output.steps
    ]
