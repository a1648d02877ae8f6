"""Scores as integers: half-even rounding from the shortest decimal form, exact sums, refused numbers."""

from __future__ import annotations

import random
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from coordinator.streams.scores.units import (
    UNITS_MAX,
    NotRecordableError,
    column_to_units,
    mean_units,
    to_float,
    to_units,
    weighted_mean_units,
)

ROUNDED = [
    # value, decimals, units
    (0.0, 9, 0),
    (-0.0, 9, 0),
    (1, 9, 10**9),
    (0.5, 0, 0),  # half to even
    (1.5, 0, 2),
    (2.5, 0, 2),
    (-0.5, 0, 0),
    (-1.5, 0, -2),
    (0.1 + 0.2, 9, 300_000_000),
    (1e-10, 9, 0),
    (5e-10, 9, 0),
    (1.5e-9, 9, 2),
    (5e-324, 12, 0),
    (0.1234567895, 9, 123_456_790),  # 0.1234567895 is below that half in binary; its shortest form decides
    (0.1234567885, 9, 123_456_788),
    (9007199254740992.0, 0, 2**53),
    (-9007199254740992.0, 0, -(2**53)),
    (True, 0, 1),
]


@pytest.mark.parametrize(("value", "decimals", "units"), ROUNDED)
def test_rounding(value, decimals, units):
    assert to_units(value, decimals) == units


@pytest.mark.parametrize(
    ("value", "decimals"),
    [
        (float("nan"), 9),
        (float("inf"), 9),
        (float("-inf"), 9),
        (9007199254740994.0, 0),
        (9007199.254740994, 9),
        (-9007199.254740994, 9),
        (1e300, 9),
        (-1e308, 12),
        (2**53 + 1, 0),
        (10**400, 9),
    ],
)
def test_a_number_that_cannot_be_recorded_has_a_reason(value, decimals):
    with pytest.raises(NotRecordableError, match=r"not finite|beyond 2\*\*53") as refused:
        to_units(value, decimals)
    assert len(str(refused.value)) < 500


@property_of(st.floats(-9_000_000, 9_000_000), st.integers(0, 9))
def test_a_rounded_score_is_the_nearest_and_does_not_change_again(value, decimals):
    units = to_units(value, decimals)
    assert abs(units) <= UNITS_MAX
    assert abs(Fraction(units) - Fraction(Decimal(repr(value))) * 10**decimals) <= Fraction(1, 2)
    assert to_units(to_float(units, decimals), decimals) == units  # a recorded number is not rounded again


@pytest.mark.parametrize(
    ("total", "n", "mean"),
    [
        (0, 1, 0),
        (1, 2, 0),
        (3, 2, 2),
        (5, 2, 2),
        (-1, 2, 0),
        (-3, 2, -2),
        (-5, 2, -2),
        (7, 3, 2),
        (8, 3, 3),
        (-7, 3, -2),
        (-8, 3, -3),
    ],
)
def test_means_round_half_to_even(total, n, mean):
    assert mean_units(total, n) == mean


@property_of(st.integers(-(10**30), 10**30), st.integers(1, 10**9))
def test_a_mean_is_the_exact_mean_rounded(total, n):
    assert mean_units(total, n) == round(Fraction(total, n))


@property_of(st.lists(st.floats(-1000, 1000), min_size=1, max_size=50), st.randoms())
def test_sums_do_not_depend_on_order(values, rng):
    units = [to_units(value, 9) for value in values]
    shuffled = units[:]
    rng.shuffle(shuffled)
    assert sum(units) == sum(shuffled)


def test_float_sums_would_depend_on_order():
    """This is why units exist."""
    values = [0.1 * i for i in range(100)]
    rng = random.Random(1)
    sums = set()
    for _ in range(20):
        rng.shuffle(values)
        sums.add(sum(values[::2]) + sum(values[1::2]))
    assert len(sums) > 1


def test_a_weighted_mean_is_rounded_once_and_is_none_if_a_part_is_none():
    part = Fraction(1, 3)
    assert (
        weighted_mean_units([(Fraction(1), part), (Fraction(1), part), (Fraction(1), 3 * part)]) == 1
    )  # 5/9
    assert weighted_mean_units([(Fraction(3), Fraction(10)), (Fraction(1), Fraction(2))]) == 8
    assert weighted_mean_units([(Fraction(1), Fraction(1, 2))]) == 0  # half-even
    assert weighted_mean_units([(Fraction(1), Fraction(1)), (Fraction(1), None)]) is None
    assert weighted_mean_units([]) is None


@property_of(
    st.integers(-(2**40), 2**40),
    st.floats(-(2.0**-8), 2.0**-8),
    st.integers(0, 12),
)
def test_the_shortest_decimal_form_decides_near_a_tie(whole, off, decimals):
    value = (whole + 0.5 + off) / 10**decimals
    exact = Decimal(repr(value)).scaleb(decimals).to_integral_value(ROUND_HALF_EVEN)
    assert to_units(value, decimals) == exact
    assert column_to_units([value], decimals) == ([exact], {})
