"""Metrics of a period: series made by hand with known results, the undefined cases, and the inputs that must not
matter.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.streams.contract.metrics import METRIC_NAMES, Metrics
from coordinator.streams.snapshots import metrics
from coordinator.streams.snapshots.metrics import FUNCTIONS, PeriodSeries

NAN = float("nan")


def series(outcomes, chunks=10, scores=None, **signals):
    """A period from the models' signals by name. Scores are signal * outcome unless given."""
    columns = np.column_stack([np.array(column, dtype=float) for column in signals.values()])
    truth = np.array(outcomes, dtype=float)
    scored = columns * truth[:, None] if scores is None else np.array(scores, dtype=float)
    return PeriodSeries(list(signals), columns, scored, truth, chunks=chunks)


UP_DOWN = [1.0, -2.0, 3.0, -4.0, 5.0]


@pytest.mark.parametrize(
    ("name", "period", "expected"),
    [
        ("ic", series(UP_DOWN, a=[0.1, -0.2, 0.3, -0.4, 0.5]), 1.0),
        ("ic", series([1, 2, 3, 4], a=[4, 3, 2, 1]), -1.0),
        # Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4, as in scipy.stats.spearmanr.
        ("ic", series([1, 2, 3, 4], a=[7, 7, 8, 9]), 0.9486832980505138),
        ("ic", series([1, 2, 3, 4], a=[7, NAN, 8, 9]), 1.0),
        ("hit_rate", series(UP_DOWN, a=[1, 1, 1, -1, 0]), 3 / 4),
        ("mean_return", series(UP_DOWN, a=[1, 1, 1, -1, 0]), (1 - 2 + 3 + 4 + 0) / 5),
        ("max_drawdown", series([1, 1, 1, 1], a=[2, -1, -3, 5]), -4.0),
        ("max_drawdown", series([1, 1], a=[-1, -1]), -2.0),
        ("max_drawdown", series([1, 1], a=[1, 1]), 0.0),
        # r = 1, -2, 3: mean 2/3, downside sqrt(4/3).
        ("sortino_ratio", series([1, -2, 3], a=[1, 1, 1]), (2 / 3) / (4 / 3) ** 0.5),
        ("turnover", series([1, 1, 1], a=[0.0, 0.5, -0.5]), 0.75),
        ("turnover", series([1, 1, 1, 1], a=[0.0, NAN, 0.5, -0.5]), 0.75),
        ("model_correlation", series([1, 2, 3], a=[1, 2, 3], b=[1, 2, 3], c=[3, 2, 1]), 0.0),
        ("ensemble_correlation", series([1, 2, 3], a=[1, 2, 3], b=[1, 5, 9]), 1.0),
        # All models: 3, 3, 3.5, so the IC is that of [1.5, 1.5, 3]. Without a: b alone, IC -1.
        ("contribution", series([1, 2, 3], a=[1, 3, 6], b=[5, 3, 1]), 0.8660254037844387 + 1.0),
        # b explains a's trend (slope 1.9). The rest (.1, .2, -.7, .4) is compared with the outcomes.
        ("fnc", series([1, 4, 2, 3], a=[2, 4, 5, 8], b=[1, 2, 3, 4]), 0.6),
        # Chunks [1,2],[3,4],[5,6]: IC 1, -1, 1.
        (
            "ic_sharpe",
            series([1, 2, 3, 4, 5, 6], chunks=3, a=[1, 2, 4, 3, 5, 6]),
            (1 / 3) / np.std([1, -1, 1], ddof=1),
        ),
    ],
)
def test_a_metric_of_a_series_made_by_hand_is_right(name, period, expected):
    assert FUNCTIONS[name](period, 0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_period_without_a_score_of_the_model_has_no_metric(name):
    assert FUNCTIONS[name](series([1, 2], a=[NAN, NAN], b=[1, 2]), 0) is None


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("ic", series([1, 2, 3], a=[5, 5, 5])),  # the predecessor gave 1.0
        ("ic", series([1], a=[5])),
        ("ic_sharpe", series([4, 3, 2, 1], chunks=2, a=[1, 2, 3, 4])),  # -1 and -1: the predecessor gave +10
        ("hit_rate", series([0, 0], a=[1, 1])),
        ("sortino_ratio", series([1, 2], a=[1, 1])),
        ("model_correlation", series([1, 2], a=[1, 2])),
        ("fnc", series([1, 2, 3], a=[1, 2, 3], b=[2, 4, 6])),
        ("fnc", series([1, 2, 3], a=[1, 2, 3])),
        ("contribution", series([1, 2, 3], a=[1, 2, 3])),
        ("ensemble_correlation", series([1, 2, 3], a=[1, 2, 3])),
        ("turnover", series([1], a=[1])),
    ],
)
def test_an_undefined_metric_is_none_and_not_zero(name, period):
    assert FUNCTIONS[name](period, 0) is None


def test_tied_ranks_are_means_of_their_places():
    assert metrics.rank(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_correlations_agree_with_the_definition_where_models_miss_different_rounds():
    period = series([1, 2, 3, 4, 5], a=[1, 2, NAN, 3, 4], b=[2, NAN, 9, 1, 3])
    assert metrics.model_correlation(period, 0) == pytest.approx(
        metrics.spearman(np.array([1.0, 3.0, 4.0]), np.array([2.0, 1.0, 3.0]))
    )


UNITS = st.integers(-50, 50)


@settings(max_examples=50)
@given(st.data())
def test_the_order_of_the_models_never_matters(data):
    rounds = data.draw(st.integers(1, 12))
    column = st.lists(st.one_of(UNITS, st.just(NAN)), min_size=rounds, max_size=rounds)
    signals = data.draw(st.lists(column, min_size=2, max_size=5))
    outcomes = data.draw(st.lists(UNITS, min_size=rounds, max_size=rounds))
    order = data.draw(st.permutations(range(len(signals))))
    straight = series(outcomes, chunks=3, **{f"m{i}": signal for i, signal in enumerate(signals)})
    turned = series(outcomes, chunks=3, **{f"m{i}": signals[i] for i in order})
    for name, function in FUNCTIONS.items():
        for place, i in enumerate(order):
            assert function(turned, place) == pytest.approx(function(straight, i), abs=1e-9), name


def test_values_are_in_the_contracts_own_decimals():
    whole = series([1, -2, 3], a=[1, 2, 4], scores=[[5], [-7], [1]])
    small = PeriodSeries(["a"], whole.signal_units, whole.score_units, whole.outcome_units, unit=0.001)
    scaled = {"mean_return": 0.001, "max_drawdown": 0.001, "turnover": 0.001}
    for name in ("ic", "hit_rate", "mean_return", "max_drawdown", "sortino_ratio", "turnover"):
        value = FUNCTIONS[name](whole, 0)
        assert FUNCTIONS[name](small, 0) == pytest.approx(value * scaled.get(name, 1)), name
    assert (small.signals[2, 0], small.outcomes[1], small.scores[0, 0]) == pytest.approx(
        (0.004, -0.002, 0.005)
    )


def test_every_name_of_the_contract_has_its_function():
    assert tuple(FUNCTIONS) == METRIC_NAMES


@pytest.mark.parametrize(
    ("given_fields", "says"),
    [
        ({"names": ["sharpness"]}, "none of"),
        ({"names": ["ic", "ic"]}, "stand twice"),
        ({"own": {"ic": metrics.ic}}, "stand twice"),
        ({"chunks": 1}, "chunks"),
        ({"name": ["ic"]}, "name"),
    ],
)
def test_a_contract_with_meaningless_metrics_is_refused(given_fields, says):
    with pytest.raises(ValueError, match=says):
        Metrics(**given_fields)


def a_day(models=100, rounds=1440):
    random = np.random.default_rng(7)
    outcomes = random.normal(size=rounds)
    signals = outcomes[:, None] * 0.1 + random.normal(size=(rounds, models))
    signals[random.random(signals.shape) < 0.01] = np.nan
    units = np.round(signals * 1e9)
    return PeriodSeries([f"m{i}" for i in range(models)], units, units, np.round(outcomes * 1e9), 1e-9)


@pytest.mark.slow
def test_a_day_of_minutes_and_a_hundred_models_takes_seconds_not_minutes():
    period = a_day()
    began = time.process_time()
    for function in FUNCTIONS.values():
        for i in range(len(period.model_ids)):
            function(period, i)
    assert time.process_time() - began < 20  # the aim is 2 s; tests/bench measures it
