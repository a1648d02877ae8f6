"""Copies among models: each kind is found with its evidence, and honest models are not accused."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.streams.audit.copies import find_copies
from coordinator.streams.audit.copy_rules import CopyRules

NAN = float("nan")


def a_walk(seed=1, rounds=200):
    return np.cumsum(np.random.default_rng(seed).normal(size=rounds))


def noise(seed=2, rounds=200, size=1.0):
    return np.random.default_rng(seed).normal(size=rounds) * size


ORIGINAL = noise(1)


@pytest.mark.parametrize(
    ("copy", "kind", "lag", "scale"),
    [
        (ORIGINAL, "equal", 0, 1.0),
        (ORIGINAL + 1e-15, "equal", 0, 1.0),
        (ORIGINAL * 0.5 + 3, "scaled", 0, 0.5),
        (ORIGINAL * -2, "scaled", 0, -2.0),
        (np.concatenate(([0.1, 0.2], ORIGINAL[:-2])), "lagged", 2, 1.0),
        (np.concatenate(([0.1], ORIGINAL[:-1] + noise(9, 199, 0.01))), "lagged", 1, 1.0),
        (ORIGINAL + noise(3, size=0.05), "noisy", 0, 1.0),
        (np.where(np.arange(200) % 3 == 0, NAN, ORIGINAL), "equal", 0, 1.0),
    ],
)
def test_a_copy_is_found_with_its_kind(copy, kind, lag, scale):
    (pair,) = find_copies({"original": ORIGINAL, "taker": copy, "honest": noise(4)})
    assert (pair.earlier, pair.later, pair.kind, pair.lag) == ("original", "taker", kind, lag)
    assert pair.scale == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("huge", [100.0, 1e9, 1e100, -1e200, 1e308])
def test_a_huge_number_does_not_hide_an_equal_copy(huge):
    copy = ORIGINAL.copy()
    copy[[17, 90]] = huge, -huge
    series = {"original": ORIGINAL, "taker": copy, "honest": noise(4), "loud": np.full(200, huge)}
    (pair,) = find_copies(series)
    assert (pair.earlier, pair.later, pair.kind, pair.equal_share) == ("original", "taker", "equal", 0.99)


@pytest.mark.parametrize(("others", "is_found"), [(20, True), (21, False)])
def test_equal_means_nine_of_ten_numbers_whatever_the_rest_is(others, is_found):
    copy = np.where(np.arange(200) < others, 1e6 * noise(7), ORIGINAL)
    assert [pair.kind for pair in find_copies({"original": ORIGINAL, "taker": copy})] == ["equal"] * is_found


def test_the_earlier_model_is_known_by_the_lag_and_not_by_the_name():
    late = np.concatenate(([0.0], ORIGINAL[:-1]))
    (pair,) = find_copies({"a-taker": late, "z-original": ORIGINAL})
    assert (pair.earlier, pair.later, pair.lag) == ("z-original", "a-taker", 1)


def test_two_random_walks_and_two_coins_are_no_copies():
    coins = np.random.default_rng(5).choice([-1.0, 1.0], size=(200, 2))
    silent = np.full(200, NAN)
    assert not find_copies(
        {"walk": a_walk(), "coin": coins[:, 0], "other coin": coins[:, 1], "silent": silent}
    )


def test_constant_answers_are_equal_and_reported_as_never_moving():
    (pair,) = find_copies({"zero": [0.0] * 50, "nought": [0.0] * 50, "walk": a_walk(rounds=50)})
    assert (pair.kind, pair.correlation, pair.distinct) == ("equal", None, 1)


def test_too_few_common_rounds_prove_nothing():
    short = {"a": ORIGINAL[:29], "b": ORIGINAL[:29]}
    assert not find_copies(short)
    assert find_copies(short, CopyRules(common_min=20))


def test_a_small_movement_around_a_large_value_keeps_its_digits():
    price = 60_000 + noise(6, size=1e-3)
    (pair,) = find_copies({"a": price, "b": 60_000 + noise(7, size=1e-3), "c": 2 * price})
    assert (pair.earlier, pair.later, pair.kind) == ("a", "c", "scaled")


def test_no_model_or_one_alone_has_no_copies():
    assert find_copies({}) == []
    assert find_copies({"a": ORIGINAL}) == []
