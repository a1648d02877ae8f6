"""Who is in an ensemble, what each weighs, and what their answers make together.

Pure. Members are in the order of their ids, and sums go in that order: the order of answers never matters, and the same
comes out wherever it is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from coordinator.streams.contract.ensembles import Ensemble, Member, MinScore, TopN
from coordinator.streams.log.finite import is_number

WEIGHT_ONE = 10**9
"""A recorded weight is a whole number of these parts."""
NO_MEMBER = "it has no member"
"""How the reason begins."""


class NoMemberError(ValueError):
    """Nobody is in the ensemble in this round; `str()` says why."""


def members_of(ensemble: Ensemble, present: Sequence[Member], direction: str) -> list[Member]:
    """The members of a round among those `present`, in the order of ids. `direction` is `desc`: more is better.

    Raises whatever a filter of the contract's own raises.
    """
    sign = -1 if direction == "desc" else 1
    chosen = list(present)
    match ensemble.filter:
        case TopN(n=n):
            known = [(sign * one.mean_score, one.model_id) for one in present if one.mean_score is not None]
            top = {model_id for _, model_id in sorted(known)[:n]}
            chosen = [one for one in present if one.model_id in top]
        case MinScore(value=value):
            chosen = [
                one for one in present if one.mean_score is not None and sign * one.mean_score <= sign * value
            ]
        case None:
            pass
        case own:
            chosen = [one for one in present if own(one)]
    if ensemble.weights == "inverse_variance":
        return [one for one in chosen if one.mean_squared_error is not None]
    return chosen


def weights_of(ensemble: Ensemble, members: Sequence[Member], error_min: float) -> list[int]:
    """Each member's weight in parts of `WEIGHT_ONE`, together about one whole. `error_min` is the least error that a
    record tells from none.

    Raises NoMemberError without members, ValueError for what are no weights, and whatever a function of the contract's
    own raises.
    """
    if not members:
        raise NoMemberError(
            f"{NO_MEMBER}: nobody answered, or its weights and filter let nobody in "
            f"by the scores of the {ensemble.hours} h before the round"
        )
    if ensemble.weights == "equal":
        weights = equal(members)
    elif ensemble.weights == "inverse_variance":
        weights = inverse_variance(members, error_min)
    else:
        weights = [float(one) for one in ensemble.weights(members)]
    if len(weights) != len(members):
        raise ValueError(f"weights: {len(weights)} for {len(members)} members")
    if not all(math.isfinite(one) and one >= 0 for one in weights) or not any(weights):
        raise ValueError("weights: finite numbers of 0 or more, not all of them 0")
    largest = max(weights)
    whole = math.fsum(one / largest for one in weights)  # a sum of huge ones would be infinite
    return [round(one / largest / whole * WEIGHT_ONE) for one in weights]


def equal(members: Sequence[Member]) -> list[float]:
    """All alike."""
    return [1.0] * len(members)


def inverse_variance(members: Sequence[Member], error_min: float) -> list[float]:
    """1 / mean squared error, which is the variance of an error without bias. Source: Bates and Granger 1969, "The
    combination of forecasts". Who makes no error weighs as who makes one of `error_min`.
    """
    return [1.0 / max(one.mean_squared_error or 0.0, error_min**2) for one in members]


def weighted_mean(values: Sequence[Any], shares: Sequence[float], path: str = "") -> Any:
    """The weighted mean of JSON values of one form, number by number; `shares` sum to 1.

    What is no number must be the same in all. Raises ValueError that says where it is not. The sum goes in the order
    of the values, so that it is the same wherever it is computed.
    """
    first, name = values[0], path or "the answer"
    if all(is_number(one) for one in values):
        total = 0.0
        for one, share in zip(values, shares, strict=True):
            total += share * one
        return total
    if all(isinstance(one, dict) for one in values):
        if any(one.keys() != first.keys() for one in values):
            raise ValueError(f"{name} has not the same fields in all: give `combine`")
        return {
            key: weighted_mean([one[key] for one in values], shares, f"{path}.{key}" if path else str(key))
            for key in first
        }
    if all(isinstance(one, list) for one in values):
        if any(len(one) != len(first) for one in values):
            raise ValueError(f"{name} is a list of another length in some: give `combine`")
        arrays = [_numbers(one) for one in values]
        if all(one is not None and one.shape == arrays[0].shape for one in arrays):
            sums = 0.0 * arrays[0]
            for array, share in zip(arrays, shares, strict=True):
                sums += share * array
            return sums.tolist()
        return [weighted_mean([one[i] for one in values], shares, f"{path}[{i}]") for i in range(len(first))]
    if all(type(one) is type(first) and one == first for one in values):
        return first
    raise ValueError(f"{name} is no number and not the same in all: give `combine`")


def _numbers(value: list[Any]) -> Any:
    """A list of numbers, or lists of them, as an array: thousands of them are summed at once. None for others."""
    import numpy as np  # noqa: PLC0415 - a node without ensembles of lists needs none of it

    try:
        array = np.array(value)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "if" and array.size else None
