"""Exact arithmetic of scores: each float is rounded once, and only integers are summed.

A sum of floats depends on the order in which they arrive, so a replay could get another one. `to_units` converts a
score to an integer number of units of 10**-score_decimals. Sums of units are exact, and a mean is one division. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

from coordinator.streams.contract.terms import UNITS_MAX

_SURE = 2.0**40
"""Below it the fast rounding of `to_units` is exact away from ties."""
_FAR_FROM_TIE = 0.5 - 2.0**-11
"""How near its nearest integer a product must be for the fast rounding: the margin to the tie, 2**-11, is twice the
largest error of the product. A wider margin would send one value in fifty the slow way, and so most columns.
"""


class NotRecordableError(ValueError):
    """A score that is not finite, or whose units are beyond 2**53; `str()` is the reason recorded."""


def to_units(value: float, decimals: int) -> int:
    """`value` in units of 10**-decimals, rounded half-even from its shortest decimal form.

    Raises NotRecordableError for NaN, infinity and anything beyond 2**53 units.
    """
    scale: int = 10**decimals
    scaled = value * scale
    if -_SURE < scaled < _SURE:
        # This is five times faster than decimals, and exact. Below 2**40 the error of the product is at most 2**-12:
        # half of it is the rounding of the product, half the difference of the shortest decimal form from the binary
        # value. So away from a tie the nearest integer is correct. Ties and large values are rounded as decimals below.
        nearest = round(scaled)
        if abs(scaled - nearest) < _FAR_FROM_TIE:
            return nearest
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is the only value unequal to itself
        message = f"score is not finite: {value!r}"
        raise NotRecordableError(message)
    if abs(value) > UNITS_MAX:  # before scaling: 1e300 must not be expanded to 300 digits
        # An int may have more digits than Python converts to text.
        shown = repr(value) if isinstance(value, float) else f"{Decimal(value):.3e}"
        message = f"score is beyond 2**53 units: {shown}"
        raise NotRecordableError(message)
    units = int(Decimal(repr(float(value))).scaleb(decimals).to_integral_value(ROUND_HALF_EVEN))
    if abs(units) > UNITS_MAX:
        message = f"score is beyond 2**53 units: {value!r}"
        raise NotRecordableError(message)
    return units


def to_float(units: int, decimals: int) -> float:
    """The float nearest to `units` times 10**-decimals. It is for display and JSON, never for sums."""
    scale: int = 10**decimals
    return units / scale


def to_floats(units: Mapping[str, int | None], decimals: int) -> dict[str, float | None]:
    """`to_float` of each; None stays None."""
    return {name: None if value is None else to_float(value, decimals) for name, value in units.items()}


def mean_units(sum_units: int, n: int) -> int:
    """sum/n in units, rounded half-even. `n` must be positive."""
    quotient, remainder = divmod(sum_units, n)
    twice = 2 * remainder
    if twice > n or (twice == n and quotient % 2 == 1):
        quotient += 1
    return quotient


def weighted_mean_units(parts: Iterable[tuple[Fraction, Fraction | None]]) -> int | None:
    """The weighted mean of (weight > 0, value in units), rounded half-even once; None if a value is None or there are
    no parts.

    It is exact until that rounding: a part that is a mean is given as a fraction, so nothing is rounded twice.
    """
    total, weights = Fraction(0), Fraction(0)
    for weight, value in parts:
        if value is None:
            return None
        total, weights = total + weight * value, weights + weight
    return round(total / weights) if weights else None


def column_to_units(values: Any, decimals: int) -> tuple[list[int | None], dict[int, str]]:
    """(`to_units` of each value, place -> why it cannot be recorded), for a sequence or a numpy array of one dimension.

    NaN, and None in a sequence, mean that there is no number: the result is None without a reason. The results equal
    those of `to_units`; away from ties all are rounded at once. Raises ValueError for another number of dimensions.
    """
    import numpy as np  # noqa: PLC0415 - a contract that scores each prediction alone does not need it

    column = np.array(values, dtype=np.float64)
    if column.ndim != 1:
        message = f"a column of scores has one dimension, not {column.ndim}"
        raise ValueError(message)
    with np.errstate(over="ignore", invalid="ignore"):  # a value that overflows is rounded alone below
        scaled = column * 10.0**decimals
        nearest = np.rint(scaled)
        sure = (np.abs(scaled) < _SURE) & (np.abs(scaled - nearest) < _FAR_FROM_TIE)
    if sure.all():
        return nearest.astype(np.int64).tolist(), {}
    units: list[int | None] = np.where(sure, nearest, 0).astype(np.int64).tolist()
    reasons: dict[int, str] = {}
    for place in np.flatnonzero(~sure).tolist():
        units[place] = None
        if column[place] != column[place]:
            continue
        try:
            units[place] = to_units(float(column[place]), decimals)
        except NotRecordableError as error:
            reasons[place] = str(error)
    return units, reasons
