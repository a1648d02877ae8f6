"""The rules of ensembles: which models are members, their weights, and the combined answer.

Pure. Members are in the order of their ids, and sums are added in that order. So the order of the answers does not
matter, and every machine gets the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from coordinator.streams.contract.ensembles import Ensemble, Member, MinScore, TopN
from coordinator.streams.log.finite import is_number

WEIGHT_ONE = 10**9
"""A recorded weight is an integer: the weight times this number."""
NO_MEMBER = "it has no member"
"""The start of the reason, if an ensemble has no member."""


class NoMemberError(ValueError):
    """The ensemble has no member in this round; `str()` says why."""


def members_of(ensemble: Ensemble, present: Sequence[Member], direction: str) -> list[Member]:
    """The members among the models that answered (`present`), in the order of their ids.

    `direction`: `desc` if a higher score is better, or `asc`. Raises what a filter of the contract's author raises.
    """
    sign = -1 if direction == "desc" else 1
    chosen = list(present)
    match ensemble.filter:
        case TopN(n=n):
            scored = [
                (sign * member.mean_score, member.model_id)
                for member in present
                if member.mean_score is not None
            ]
            top = {model_id for _, model_id in sorted(scored)[:n]}
            chosen = [member for member in present if member.model_id in top]
        case MinScore(value=value):
            chosen = [
                member
                for member in present
                if member.mean_score is not None and sign * member.mean_score <= sign * value
            ]
        case None:
            pass
        case of_author:
            chosen = [member for member in present if of_author(member)]
    if ensemble.weights == "inverse_variance":
        return [member for member in chosen if member.mean_squared_error is not None]
    return chosen


def weights_of(ensemble: Ensemble, members: Sequence[Member], error_min: float) -> list[int]:
    """Each member's weight times `WEIGHT_ONE`, as an integer. Together they are about `WEIGHT_ONE`.

    `error_min`: the smallest error above 0 that can be recorded. Raises NoMemberError without members, ValueError for
    weights that are not finite, negative or all 0, and what a function of the contract's author raises.
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
        weights = [float(weight) for weight in ensemble.weights(members)]
    if len(weights) != len(members):
        raise ValueError(f"weights: {len(weights)} for {len(members)} members")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError("weights: finite numbers of 0 or more, not all of them 0")
    largest = max(weights)
    # Divide by the largest first: the sum of huge weights would be infinite.
    weight_sum = math.fsum(weight / largest for weight in weights)
    return [round(weight / largest / weight_sum * WEIGHT_ONE) for weight in weights]


def equal(members: Sequence[Member]) -> list[float]:
    """The same weight for every member."""
    return [1.0] * len(members)


def inverse_variance(members: Sequence[Member], error_min: float) -> list[float]:
    """1 / mean squared error of each member, at most that of an error of `error_min`.

    The mean squared error is the variance of an error without bias. Source: Bates and Granger 1969, "The combination of
    forecasts".
    """
    return [1.0 / max(member.mean_squared_error or 0.0, error_min**2) for member in members]


def weighted_mean(values: Sequence[Any], shares: Sequence[float], path: str = "") -> Any:
    """The weighted mean of JSON values of the same shape, number by number. `shares` sum to 1.

    Anything that is no number must be equal in all values; otherwise raises ValueError, which names the place. The
    numbers are added in the order of the values, so that every machine gets the same sum.
    """
    first, name = values[0], path or "the answer"
    if all(is_number(value) for value in values):
        # Not `sum`, which compensates for errors since Python 3.12, nor numpy's dot product, whose order of additions
        # depends on the machine.
        total = 0.0
        for value, share in zip(values, shares, strict=True):
            total += share * value
        return total
    if all(isinstance(value, dict) for value in values):
        if any(value.keys() != first.keys() for value in values):
            raise ValueError(f"{name} has not the same fields in all: give `combine`")
        return {
            key: weighted_mean(
                [value[key] for value in values], shares, f"{path}.{key}" if path else str(key)
            )
            for key in first
        }
    if all(isinstance(value, list) for value in values):
        if any(len(value) != len(first) for value in values):
            raise ValueError(f"{name} is a list of another length in some: give `combine`")
        arrays = [_numbers(value) for value in values]
        if all(array is not None and array.shape == arrays[0].shape for array in arrays):
            # Element by element the same operations in the same order as for single numbers, so the same bits.
            sums = 0.0 * arrays[0]
            for array, share in zip(arrays, shares, strict=True):
                sums += share * array
            return sums.tolist()
        return [
            weighted_mean([value[i] for value in values], shares, f"{path}[{i}]") for i in range(len(first))
        ]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    raise ValueError(f"{name} is no number and not the same in all: give `combine`")


def _numbers(value: list[Any]) -> Any:
    """A list of numbers, or of lists of them, as an array, which is summed much faster. None for any other list."""
    import numpy as np  # noqa: PLC0415 - a node without ensembles of lists does not need it

    try:
        array = np.array(value)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "if" and array.size else None
