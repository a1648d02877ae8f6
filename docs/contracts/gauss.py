"""Numerai's numbers of a round: gauss-ranked answers, their correlation with the target, and what they contribute.

Source: numerai-tools, scoring.py (`numerai_corr`, `correlation_contribution`, `stake_weight`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

POWER = 1.5
BUCKETS = 4


def gauss_ranked(values: Sequence[float]) -> Any:
    """Shape (n,): the normal quantile of (mean rank - 1/2) / n; tied values have the mean of their ranks."""
    numbers = np.asarray(values, dtype=np.float64)
    ascending = np.sort(numbers)
    below, upto = np.searchsorted(ascending, numbers, "left"), np.searchsorted(ascending, numbers, "right")
    places = (below + upto) / 2 / len(numbers)  # the mean rank is (below + 1 + upto) / 2
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(place)) for place in places])


def correlation(ranked: Any, targets: Sequence[float]) -> float:
    """In -1..1: Pearson's correlation of both sides to the power of 1.5, the target centred first; 0 if a side is
    constant.
    """
    target = np.asarray(targets, dtype=np.float64)
    if not len(target) or np.ptp(ranked) == 0 or np.ptp(target) == 0:
        return 0.0
    x, y = _power(ranked), _power(target - target.mean())
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def contribution(ranked: Any, meta: Any | None, targets: Sequence[float]) -> float | None:
    """MMC: an answer minus its projection on the meta model, times the centred target. None
    where there is no meta model.
    """
    if meta is None:
        return None
    again, target = gauss_ranked(meta), np.asarray(targets, dtype=np.float64)
    if not len(target):
        return 0.0
    if ((target >= 0) & (target <= 1)).all():
        target = target * BUCKETS
    length = again @ again
    left = ranked - again * (ranked @ again / length) if length else ranked
    return float((target - target.mean()) @ left / len(target))


def weighted(ranked: Mapping[str, Any], stakes: Mapping[str, float]) -> Any | None:
    """Shape (n,): the meta model, the mean of the gauss-ranked answers weighted by stake. None if nobody has a
    stake.
    """
    whole = sum(stakes.values())
    if not whole > 0:
        return None
    return sum(ranked[model] * stake for model, stake in sorted(stakes.items())) / whole


def _power(values: Any) -> Any:
    return np.sign(values) * np.abs(values) ** POWER
