"""Variations of Synth's and the subnet's cases (holes, ties, refusals, no models), computed a second time by plain code."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.checkout import root_on_path

with root_on_path():
    from docs.contracts.densities import FAMILIES, Refused, leaves, pdf
    from docs.contracts.paths import _fits, all_fit, paths_of
    from tests.oracles.synths import subnet_prompt, subnet_window, synth_round

START = 1_780_000_020
MONTH = 687 * 30 * 86_400
"""The boundary of two periods of thirty days."""


# --- densities -------------------------------------------------------------------------------------------

SHAPES = {"df": 5.5, "s": 0.7, "c": 1.7, "a": 2.2, "b": 3.1, "dfn": 6.0, "dfd": 9.0}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_density_has_a_mass_of_1_and_is_moved_by_loc_and_scale(name: str):
    shapes = {shape: SHAPES[shape] for shape in FAMILIES[name][0]}
    plain = leaves({"type": "builtin", "name": name, "params": shapes})
    moved = leaves({"type": "builtin", "name": name, "params": shapes | {"loc": 3.0, "scale": 2.0}})
    # The substitution x = tan(u) maps the whole line, with its heavy tails, to a bounded interval.
    n = 4000
    steps = [(i + 0.5) / n * math.pi - math.pi / 2 for i in range(n)]
    mass = sum(pdf(plain, math.tan(u)) / math.cos(u) ** 2 for u in steps) * math.pi / n
    assert mass == pytest.approx(1, abs=2e-3)
    assert pdf(moved, 3 + 2 * 0.7) == pytest.approx(pdf(plain, 0.7) / 2)


def test_what_is_no_density_is_refused():
    norm = {"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 1}}

    def nested(depth: int) -> dict[str, Any]:
        inner = nested(depth - 1) if depth else norm
        return {"type": "mixture", "components": [{"density": inner, "weight": 1}]} if depth else inner

    def mixture_of(count: int) -> dict[str, Any]:
        return {"type": "mixture", "components": [{"density": norm, "weight": -0.5}] * count}

    assert len(leaves(nested(3))) == 1
    assert [weight for weight, *_ in leaves(mixture_of(4))] == [0.25] * 4
    bad = [nested(4), mixture_of(0), 7, None, {}, norm | {"name": "none"}, norm | {"params": {"loc": "0", "scale": 1}},
           norm | {"params": {"loc": 0, "scale": 0}}, norm | {"params": {"loc": math.inf, "scale": 1}},
           {"type": "builtin", "name": "t", "params": {"df": -1}}, {"type": "mixture", "components": [{"density": norm}]}]  # fmt: skip
    for density in bad:
        with pytest.raises(Refused):
            leaves(density)
    with pytest.raises(Refused):
        leaves(mixture_of(4), leaves_max=3)


def norm_pdf(z: float, loc: float, scale: float) -> float:
    return math.exp(-(((z - loc) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))


def integral(values: list[float], dz: float) -> float:
    return dz * (sum(values) - (values[0] + values[-1]) / 2)


def crps_by_hand(
    parts: list[tuple[float, float, float]], x: float, half: float, points: int, *, normalise: bool
) -> float:
    grid = [-half + 2 * half * i / (points - 1) for i in range(points)]
    dz, total = grid[1] - grid[0], sum(abs(weight) for weight, *_ in parts)
    density = [
        sum(abs(weight) / total * norm_pdf(z, *loc_and_scale) for weight, *loc_and_scale in parts)
        for z in grid
    ]
    mass = integral(density, dz) if normalise else 1.0
    below = [min(1.0, value * dz / mass) for value in itertools.accumulate(density)]
    return integral([(f - (z >= x)) ** 2 for f, z in zip(below, grid, strict=True)], dz)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_crps_of_an_hour_with_weights_of_many_digits_and_a_missing_record(normalise: bool):
    parts = [(-0.123456789, -300.00049, 900.123456), (0.3, 20.0, 2000.0)]
    rounded = [(-0.123457, -300.0, 900.123), (0.3, 20.0, 2000.0)]
    mixture = {"type": "mixture", "components": [
        {"density": {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}, "weight": weight}
        for weight, loc, scale in parts
    ]}  # fmt: skip
    wide = {"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 3000.0}}
    steps = [600, 1200]
    answers = {
        name: {str(s): [density] * (3600 // s) for s in steps}
        for name, density in (("a", mixture), ("b", wide))
    }
    prices = {0: 100.0, 600: 700.0, 1200: -900.0, 1250: 50.0, 2400: 400.0, 3000: 0.0, 3600: 90.0}
    # The record closest to 1800 is at 1250, the one closest to 1200 at 1200.
    seen = [(600, [600.0, -1600.0, 950.0, 350.0, -400.0, 90.0]), (1200, [-1000.0, 1300.0, -310.0])]
    result = synth_round({
        "parameters": {"half_width": {"BTC": 1500}, "num_points": 300, "normalise_pdf": normalise},
        "round": {"asset": "BTC", "horizon": 3600, "steps": steps, "asked": START, "answers": answers,
                  "prices": [[START + time, price] for time, price in prices.items()]},
    })  # fmt: skip
    for model, components in (("a", rounded), ("b", [(1.0, 0.0, 3000.0)])):
        expected = sum(
            crps_by_hand(components, x, 1500 * math.sqrt(step / 300), 300, normalise=normalise)
            for step, changes in seen
            for x in changes
        )
        assert result["crps"][model] == pytest.approx(expected / 1500, abs=1e-9)


# --- the Synth subnet ------------------------------------------------------------------------------------


def pairs_by_hand(samples: list[float], real: float) -> float:
    n = len(samples)
    spread = sum(abs(a - b) for a in samples for b in samples) / n**2
    return sum(abs(a - real) for a in samples) / n - spread / 2


def returns(path: list[float]) -> list[float]:
    return [(b - a) / a * 1e4 for a, b in itertools.pairwise(path)]


def test_an_hour_of_paths_with_gaps_volatility_and_holes_in_the_real_prices():
    chance = random.Random(1)

    def path() -> list[float]:
        return [round(1000 * math.exp(chance.gauss(0, 0.001) * math.sqrt(i)), 3) for i in range(61)]

    real: list[float] = path()
    real[7] = real[31] = real[60] = math.nan
    paths = [path() for _ in range(7)]
    intervals = {"2min": 120, "15min": 900, "20min_abs": 1200, "0_10min_gaps": 600, "0_60min_gaps": 3600}
    result = subnet_prompt({
        "rule": "2026-09",
        "prompt": {"start": START, "increment": 60, "length": 3600, "simulations": 7, "intervals": intervals,
                   "vol_blocks": [3600, 900, 300], "real": real, "answers": {"a": [START, 60, *paths], "n": None}},
    })  # fmt: skip
    expected = 0.0
    for k in (2, 15):
        for i in range(0, 61 - k, k):
            if not math.isnan(real[i] + real[i + k]):
                change = [(simulated[i + k] - simulated[i]) / simulated[i] * 1e4 for simulated in paths]
                expected += pairs_by_hand(change, (real[i + k] - real[i]) / real[i] * 1e4)
    expected += sum(
        pairs_by_hand([simulated[i] for simulated in paths], real[i]) / real[59] * 1e4 for i in (20, 40)
    )
    expected += pairs_by_hand(
        [(simulated[10] - simulated[0]) / simulated[0] * 1e4 for simulated in paths],
        (real[10] - real[0]) / real[0] * 1e4,
    )
    for k in (60, 15, 5):
        for i in range(0, 60, k):
            real_returns = [change for change in returns(real[i : i + k + 1]) if not math.isnan(change)]
            of_paths = [statistics.stdev(returns(simulated[i : i + k + 1])) for simulated in paths]
            expected += 5.25 / (3 * (60 // k)) * pairs_by_hand(of_paths, statistics.stdev(real_returns))
    assert result["crps"]["a"] == pytest.approx(expected, abs=1e-8)
    assert (result["best"], result["fill"]) == (result["crps"]["a"], result["crps"]["a"])


def paths_prompt(rule: str, ends: dict[str, float | None], real: float = 100.0) -> dict[str, Any]:
    answers = {model: None if end is None else [START, 60, [100.0, end]] for model, end in ends.items()}
    return {
        "rule": rule,
        "prompt": {"start": START, "increment": 60, "length": 60, "simulations": 1, "intervals": {"1min": 60},
                   "vol_blocks": [], "real": [100.0, real], "answers": answers},
    }  # fmt: skip


def test_no_valid_answer_leaves_no_best_and_no_fill_and_no_score():
    result = subnet_prompt(paths_prompt("2026-05", {"a": None, "b": 0.0}))
    assert (result["best"], result["fill"], result["scores"]) == (None, None, {"a": None, "b": None})


def test_outliers_are_cut_at_ten_medians_unless_the_median_is_0():
    # Each answer is a single path, so its CRPS is its distance from the real price: 100 basis points for each 1.0.
    result = subnet_prompt(paths_prompt("2026-09", {"a": 101.0, "b": 102.0, "c": 190.0, "n": None}))
    assert result["scores"] == pytest.approx({"a": 0, "b": 100, "c": 1900, "n": 95})
    result = subnet_prompt(paths_prompt("2026-09", {"a": 100.0, "b": 100.0, "c": 190.0}))
    assert result["scores"] == pytest.approx({"a": 0, "b": 0, "c": 9000})


def test_digits_are_counted_as_written_by_the_older_rule_and_as_significant_by_the_newer():
    prompt = {"start": START, "increment": 60, "length": 60, "simulations": 1}

    def fits(price: Any, *, characters: bool) -> bool:
        return not isinstance(paths_of([START, 60, [1.0, price]], prompt, characters=characters), str)

    cases: dict[Any, tuple[bool, bool]] = {
        12345.678: (True, True), 12345.6789: (False, False), 0.0012345: (True, True), 0.00123456: (False, True),
        1.5e-06: (True, True), 123456789: (False, False), 1000000000: (False, True), -5.5: (True, True),
        1e39: (False, False), 1e-50: (True, False), math.nan: (False, False), True: (False, False), "1": (False, False),
    }  # fmt: skip
    fitting = {price: (fits(price, characters=True), fits(price, characters=False)) for price in cases}
    assert fitting == cases


DECIMALS = st.builds(
    lambda digits, power, ulps: (
        math.nextafter(float(f"{digits}e{power}"), math.inf if ulps > 0 else -math.inf)
        if ulps
        else float(f"{digits}e{power}")
    ),
    st.integers(-(10**9), 10**9),
    st.integers(-60, 40),
    st.sampled_from([0, 0, 0, -1, 1]),
)
"""Numbers with about as many digits as a price may have, and the floats next to them."""
PRICES = (
    DECIMALS
    | st.floats()
    | st.integers()
    | st.integers(-(10**9), 10**9)
    | st.booleans()
    | st.text(max_size=2)
)


@given(st.lists(PRICES, min_size=1, max_size=20), st.booleans())
@example([10**400], False)
@example([2**53 + 1], False)
@example([9.9999999, 1000.0, 1e22, 1e-14, 0.0], False)
@example([999999995, 99999999.5, 9007199254740993.0], False)
def test_prices_that_are_judged_together_are_judged_as_each_alone(prices: list[Any], characters: bool):
    fits_alone = [_fits(price, characters=characters) for price in prices]
    assert [all_fit([price], characters=characters) for price in prices] == fits_alone
    assert all_fit(prices, characters=characters) == all(fits_alone)
    assert all_fit(
        [price for price, fits in zip(prices, fits_alone, strict=True) if fits], characters=characters
    )


def test_three_competitions_weigh_a_third_each_and_a_newcomer_gets_the_worst_score_of_earlier_prompts():
    def rows(*scores: dict[str, float | None]) -> list[dict[str, Any]]:
        return [
            {"time": MONTH - 600 + 600 * i, "asset": "BTC", "scores": scores_of_prompt, "worst": 10.0}
            for i, scores_of_prompt in enumerate(scores)
        ]

    plain = rows({"a": 1.0, "b": 2.0, "c": 6.0})
    result = subnet_window({
        "asset_weights": {"BTC": 1.0},
        "competitions": [
            {"label": "equities", "share": 1 / 3, "beta": 0.15, "rows": plain},
            {"label": "crypto", "share": 1 / 3, "beta": 0.15, "rows": plain},
            {"label": "hour", "share": 1 / 3, "beta": 0.3,
             "rows": rows({"a": 0.0}, {"a": 2.0, "b": 1.0}, {"a": 4.0, "b": 0.0}, {"a": 0.0, "b": None})},
        ],
    })  # fmt: skip
    assert result["aggregates"]["hour"] == {"a": 1.5, "b": 5.25, "c": None}
    plain_weight = {model: math.exp(-0.15 * loss) for model, loss in (("a", 1.0), ("b", 2.0), ("c", 6.0))}
    hour = {"a": math.exp(-0.3 * 1.5), "b": math.exp(-0.3 * 5.25), "c": 0.0}
    expected = {
        model: (2 * plain_weight[model] / sum(plain_weight.values()) + hour[model] / sum(hour.values())) / 3
        for model in "abc"
    }
    assert result["weights"] == pytest.approx(expected, abs=1e-9)
    assert sum(result["payouts_frac64"].values()) == 10**9
