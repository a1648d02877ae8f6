"""Computes metrics over a snapshot period from the series of every model, aligned by round and scope. Pure.

Every metric takes a `PeriodSeries` and the column of a model. It returns a float, or None if it is undefined: too few
rounds, a constant series, no other model to compare with. An undefined metric is never 0: a 0 would rank above every
model that is worse than chance. A metric reads only the rounds in which the model was scored.

Tied values share the mean of their ranks, as in `scipy.stats.rankdata(method="average")`. So a constant signal has no
correlation; with distinct ranks it could have a perfect one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coordinator.streams.contract.metrics import Metrics

ROUNDS_MIN = 2
"""A correlation, and a deviation, need two values."""
RESIDUAL_ROUNDS_MIN = 3
"""A line goes through any two points, so with fewer than three the residual is always 0."""
ROUNDING = 1e-12
"""A value below this part of its series is a rounding error, not a signal."""

Floats = NDArray[np.float64]
Metric = Callable[["PeriodSeries", int], float | None]


@dataclass(frozen=True)
class PeriodSeries:
    """One period of n rounds and m models. Rounds are in the order of resolvable time, input and scope.

    The columns hold integers in units (value / `unit`), as the log does, and NaN for no value. Sums of them are exact,
    so the order of the models cannot break a tie; it could with sums of floats.
    """

    model_ids: Sequence[str]
    """m ids: the model of each column."""
    signal_units: Floats
    """(n, m): the signal of each model; NaN where it was not scored."""
    score_units: Floats
    """(n, m): the contract's value field; NaN where it was not scored."""
    outcome_units: Floats
    """(n,): the outcome of each round; NaN where no model was scored."""
    unit: float = 1.0
    """The value of one unit: 1e-9 with 9 decimals."""
    chunks: int = 10
    """The number of pieces into which `ic_sharpe` cuts the period."""
    weights: Floats | None = None
    """(n, m): the weight of each model in the declared ensemble, 0 where it is no member; None if the metrics name no
    ensemble."""

    @cached_property
    def signals(self) -> Floats:
        """(n, m): the signal of each model, as the contract returned it."""
        return self.signal_units * self.unit

    @cached_property
    def scores(self) -> Floats:
        """(n, m): the contract's value field."""
        return self.score_units * self.unit

    @cached_property
    def outcomes(self) -> Floats:
        """(n,): the outcome of each round, as the contract returned it."""
        return self.outcome_units * self.unit

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(n, m): True where the model has a signal and the round an outcome."""
        return ~(np.isnan(self.signal_units) | np.isnan(self.outcome_units)[:, None])

    @cached_property
    def ranks(self) -> Floats:
        """(n, m): the rank of each signal among those of its model; NaN if there is no signal."""
        columns = [ranked(self.signal_units[:, i], self.present[:, i]) for i in range(len(self.model_ids))]
        return np.column_stack(columns) if columns else np.empty_like(self.signal_units)

    @cached_property
    def correlations(self) -> Floats:
        """(m, m): the Spearman correlation of the signals of two models over the rounds that both have; NaN where
        undefined.
        """
        return np.array([self.correlations_of(i) for i in range(len(self.model_ids))]).reshape(
            len(self.model_ids), len(self.model_ids)
        )

    def correlations_of(self, i: int) -> Floats:
        """(m,): row i of `correlations`. Each pair is computed once, when it is asked for."""
        row = np.full(len(self.model_ids), np.nan)
        for j in range(len(self.model_ids)):
            if j != i:
                pair = (i, j) if j < i else (j, i)
                if pair not in self._pairs:
                    self._pairs[pair] = _pair(self, *pair)
                correlation = self._pairs[pair]
                if correlation is not None:
                    row[j] = correlation
        return row

    @cached_property
    def _pairs(self) -> dict[tuple[int, int], float | None]:
        return {}

    def own(self, i: int) -> tuple[Floats, Floats]:
        """(signals, outcomes) in units, of the rounds in which model i was scored."""
        there = self.present[:, i]
        return self.signal_units[there, i], self.outcome_units[there]

    @cached_property
    def totals(self) -> tuple[Floats, Floats]:
        """(n,) each: the sum of the signals of each round in units, and their number."""
        return np.where(self.present, self.signal_units, 0.0).sum(axis=1), self.present.sum(axis=1).astype(
            float
        )

    def mean_signal(self, without: int | None = None) -> Floats:
        """(n,): the mean of the signals of each round in units; NaN where there are none. `without`: the column of a
        model to leave out.
        """
        sums, counts = self.totals
        if without is not None:
            # Units are integers, so the subtraction is exact and leaves the sum of the others to the last digit.
            there = self.present[:, without]
            sums, counts = sums - np.where(there, self.signal_units[:, without], 0.0), counts - there
        means: Floats = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return means

    def ensemble_signal(self, without: int | None = None) -> Floats:
        """(n,): the signal of the ensemble in units: the weighted mean of its members' signals; NaN where it has none.

        `without`: the column of a model to leave out; the ratios of the other weights stay. If no ensemble is declared,
        it is the equal mean of all models.
        """
        if self._weighted is None:
            return self.mean_signal(without)
        weights, products = self._weighted
        if without is not None:
            # Weighted signals are not integers. So sum the others again: a subtraction leaves a rounding error, and
            # ranks would take it for a signal.
            weights, products = weights.copy(), products.copy()
            weights[:, without] = products[:, without] = 0.0
        whole = weights.sum(axis=1)
        signals: Floats = np.divide(
            products.sum(axis=1), whole, out=np.full(len(whole), np.nan), where=whole > 0
        )
        return signals

    @cached_property
    def _weighted(self) -> tuple[Floats, Floats] | None:
        """(n, m) each: the weights of the declared ensemble, and weights times signals; 0 without a signal."""
        if self.weights is None:
            return None
        weights = np.where(self.present, self.weights, 0.0)
        return weights, weights * np.where(self.present, self.signal_units, 0.0)


def ranked(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """`rank` of the values selected by `where`; NaN elsewhere."""
    out = np.full(len(values), np.nan)
    out[where] = rank(values[where])
    return out


def rank(values: Floats) -> Floats:
    """Ranks from 1, the lowest value first; tied values share the mean of their ranks."""
    if not len(values):
        return values
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    first = np.concatenate(([True], in_order[1:] != in_order[:-1]))
    group = np.cumsum(first) - 1
    starts = np.append(np.flatnonzero(first), len(values))
    means: Floats = (starts[:-1] + starts[1:] + 1) / 2
    out = np.empty(len(values))
    out[order] = means[group]
    return out


def pearson(a: Floats, b: Floats) -> float | None:
    """The linear correlation of two series of equal length; None below two values, or if one of them is constant."""
    if len(a) < ROUNDS_MIN or a.min() == a.max() or b.min() == b.max():
        return None
    x, y = a - a.mean(), b - b.mean()
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(a: Floats, b: Floats) -> float | None:
    """The rank correlation: Pearson of the ranks."""
    return pearson(rank(a), rank(b))


def ic(series: PeriodSeries, i: int) -> float | None:
    """Information coefficient: Spearman(signal, outcome)."""
    return spearman(*series.own(i))


def ic_sharpe(series: PeriodSeries, i: int) -> float | None:
    """Mean / standard deviation (n - 1) of the IC over equal pieces of the period.

    None if fewer than two pieces have an IC, or if all are equal: a deviation of 0 says nothing about skill.
    """
    signals, outcomes = series.own(i)
    pieces = min(series.chunks, len(signals) // ROUNDS_MIN)
    if pieces < ROUNDS_MIN:
        return None
    coefficients = [
        coefficient
        for a, b in zip(np.array_split(signals, pieces), np.array_split(outcomes, pieces), strict=True)
        if (coefficient := spearman(a, b)) is not None
    ]
    deviation = float(np.std(coefficients, ddof=1)) if len(coefficients) >= ROUNDS_MIN else 0.0
    return float(np.mean(coefficients)) / deviation if deviation > ROUNDING else None


def hit_rate(series: PeriodSeries, i: int) -> float | None:
    """The share of rounds in which signal and outcome have the same sign, of those in which neither is 0."""
    signals, outcomes = series.own(i)
    both_signed = (signals != 0) & (outcomes != 0)
    if not both_signed.any():
        return None
    return float(np.mean(np.sign(signals[both_signed]) == np.sign(outcomes[both_signed])))


def _returns(series: PeriodSeries, i: int) -> Floats:
    """sign(signal) * outcome of each round, in units: the return of a position in the direction of the signal."""
    signals, outcomes = series.own(i)
    return np.sign(signals) * outcomes


def mean_return(series: PeriodSeries, i: int) -> float | None:
    """mean(sign(signal) * outcome); a signal of 0 has the return 0."""
    returns = _returns(series, i)
    return float(returns.mean()) * series.unit if len(returns) else None


def max_drawdown(series: PeriodSeries, i: int) -> float | None:
    """The largest fall of the running sum of scores below its peak so far. The peak starts at 0. In (-inf, 0]."""
    scores = series.score_units[~np.isnan(series.score_units[:, i]), i]
    if not len(scores):
        return None
    total = np.cumsum(scores)
    peak = np.maximum(np.maximum.accumulate(total), 0.0)
    return float((total - peak).min()) * series.unit


def sortino_ratio(series: PeriodSeries, i: int) -> float | None:
    """mean(r) / sqrt(mean(min(r, 0)**2)) over all rounds, r = sign(signal) * outcome. None if no r is negative.

    Source: Sortino and van der Meer 1991, with a target of 0. The deviation is over all rounds and not over the losing
    ones alone: else a model that loses rarely would look as risky as one that always loses.
    """
    returns = _returns(series, i)
    if not (returns < 0).any():
        return None
    return float(returns.mean() / np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2)))


def turnover(series: PeriodSeries, i: int) -> float | None:
    """Mean |change of the signal| from one scored round to the next."""
    signals, _ = series.own(i)
    return float(np.abs(np.diff(signals)).mean()) * series.unit if len(signals) > 1 else None


def model_correlation(series: PeriodSeries, i: int) -> float | None:
    """The mean of the Spearman correlations with each other model's signals, over the rounds that both have."""
    others = np.delete(series.correlations_of(i), i)
    defined = others[~np.isnan(others)]
    return float(defined.mean()) if len(defined) else None


def _pair(series: PeriodSeries, i: int, j: int) -> float | None:
    """The Spearman correlation of the signals of models i and j over the rounds that both have."""
    mine, theirs = series.present[:, i], series.present[:, j]
    both = mine & theirs
    common = np.count_nonzero(both)
    # Ranking takes most of the time. If the common rounds are all rounds of a model, its ranks are computed already.
    a, b = (
        series.ranks[both, column]
        if common == np.count_nonzero(series.present[:, column])
        else rank(series.signals[both, column])
        for column in (i, j)
    )
    return pearson(a, b)


def fnc(series: PeriodSeries, i: int) -> float | None:
    """Neutralised IC: Spearman of the outcome with the part of the signal that the mean of the other models does not
    explain.

    That part is the residual of a least-squares line of the model's signal on the mean. None without other models.
    """
    others = series.mean_signal(without=i)
    there = series.present[:, i] & ~np.isnan(others)
    signals, outcomes, mean = (
        series.signal_units[there, i],
        series.outcome_units[there],
        others[there],
    )
    if len(signals) < RESIDUAL_ROUNDS_MIN:
        return None
    x, y = mean - mean.mean(), signals - signals.mean()
    slope = (x @ y) / (x @ x) if x @ x > 0 else 0.0
    residual = y - slope * x
    if np.abs(residual).max() <= ROUNDING * max(1.0, np.abs(signals).max()):
        return None  # the signal is a copy of the mean: the residual is a rounding error
    return spearman(residual, outcomes)


def contribution(series: PeriodSeries, i: int) -> float | None:
    """IC(ensemble) - IC(ensemble without this model), over the rounds in which the model was scored.

    The ensemble is the declared one (`Metrics.ensemble`), else the equal mean of all models.
    """
    everybody, others = series.ensemble_signal(), series.ensemble_signal(without=i)
    there = series.present[:, i] & ~np.isnan(others)
    whole = spearman(everybody[there], series.outcome_units[there])
    rest = spearman(others[there], series.outcome_units[there])
    return None if whole is None or rest is None else whole - rest


def ensemble_correlation(series: PeriodSeries, i: int) -> float | None:
    """Spearman of the model's signals with those of the ensemble without it (declared, else the equal mean)."""
    others = series.ensemble_signal(without=i)
    there = series.present[:, i] & ~np.isnan(others)
    return spearman(series.signal_units[there, i], others[there])


FUNCTIONS: dict[str, Metric] = {
    function.__name__: function
    for function in (
        ic,
        ic_sharpe,
        hit_rate,
        mean_return,
        max_drawdown,
        sortino_ratio,
        turnover,
        model_correlation,
        fnc,
        contribution,
        ensemble_correlation,
    )
}
"""Name -> function, for every metric that comes with the node."""


def functions_of(metrics: Metrics) -> dict[str, Metric]:
    """Summary key -> function, for the metrics that a contract asks for."""
    return {name: FUNCTIONS[name] for name in metrics.names} | metrics.own
