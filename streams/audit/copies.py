"""Finds pairs of models with similar answers: equal, scaled, lagged, or with noise added.

Pure: takes series of numbers aligned by round, returns pairs with the evidence. A pair is no proof: two honest models
that were built from the same quickstarter look like copies, too. The operator decides.

Each pair has the first kind that applies, from the strongest evidence to the weakest:

- `equal`: at least `equal_share_min` of the common values agree to `DIGITS` digits;
- `scaled`: one is a straight-line function of the other (correlation beyond 1 - 1e-9);
- `lagged`: one repeats the other `lag` rounds later, with a higher correlation than in the same round;
- `noisy`: the correlation at the same time is at least `correlation_min`.

`equal` is looked for answer by answer, since one huge number in one round leaves no correlation to see. It hides the
other kinds: each is a matter of correlation.

Agreement of series with few distinct values (always 0, or only -1 and 1) proves nothing. Such pairs are reported only
as `equal`, with the number of distinct values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.streams.audit.copy_rules import (
    DIGITS,
    DISTINCT_MIN,
    LAGS,
    RULES,
    SCALED_MIN,
    CopyFound,
    CopyRules,
    Kind,
)

Floats = NDArray[np.float64]


def find_copies(series: Mapping[str, Sequence[float] | Floats], rules: CopyRules = RULES) -> list[CopyFound]:
    """Every pair above the thresholds, the strongest evidence first.

    `series`: model id -> one number per round, NaN if it did not answer; all have the same length. An answer that is
    more than one number (a density) has several numbers per round, one after another.
    """
    model_ids = sorted(series)
    if len(model_ids) < 2:  # noqa: PLR2004 - a pair
        return []
    values = np.column_stack([np.asarray(series[model_id], dtype=float) for model_id in model_ids])
    # A number beyond the range of a float would leave its model without any correlation: it counts as no answer.
    values[~np.isfinite(values)] = np.nan
    equal_counts = _equal_counts(values)
    by_lag = {lag: _Correlations(values, lag) for lag in range(min(LAGS, len(values) - 1) + 1)}
    copies: list[CopyFound] = []
    for i in range(len(model_ids)):
        for j in range(i + 1, len(model_ids)):
            may_be_equal = equal_counts[i, j] >= rules.equal_share_min * by_lag[0].common[i, j]
            evidence = _judge(values, model_ids, i, j, by_lag, rules, may_be_equal=may_be_equal)
            if evidence is not None:
                copies.append(evidence)
    strength = {"equal": 0, "scaled": 1, "lagged": 2, "noisy": 3}
    return sorted(
        copies, key=lambda pair: (strength[pair.kind], -(pair.correlation or 0), pair.earlier, pair.later)
    )


def _equal_counts(values: Floats) -> NDArray[np.int64]:
    """For each pair, in how many rounds both agree, or are linked by others that do: at least as many as are equal."""
    counts = np.zeros((values.shape[1], values.shape[1]), dtype=np.int64)
    for row in values:
        order = np.argsort(row)  # those without an answer are last, and near nobody
        ascending = row[order]
        near = np.diff(ascending) <= 10.0**-DIGITS * np.maximum(abs(ascending[1:]), abs(ascending[:-1]))
        starts = np.flatnonzero(np.concatenate(([True], ~near)))
        sizes = np.diff(np.concatenate((starts, [len(order)])))
        for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            alike = order[start : start + size]
            counts[np.ix_(alike, alike)] += 1
    return counts


class _Correlations:
    """Pearson's correlation of every ordered pair at one lag, over the rounds that both answered.

    `of[i, j]` correlates the answers of i in round t - lag with those of j in round t. All pairs are computed with a
    few matrix products.
    """

    def __init__(self, values: Floats, lag: int) -> None:
        # Centre and scale first. The formulas below subtract squares of sums, and would lose the digits of a series
        # that varies little around a large value.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            centred = values - np.nanmean(np.where(np.isnan(values).all(axis=0), 0.0, values), axis=0)
            spread = np.sqrt(np.nanmean(np.where(np.isnan(values).all(axis=0), 0.0, centred**2), axis=0))
            scaled = centred / np.where(spread > 0, spread, 1.0)
        before, after = scaled[: len(scaled) - lag], scaled[lag:]
        has_before, has_after = ~np.isnan(before), ~np.isnan(after)
        a, b = np.where(has_before, before, 0.0), np.where(has_after, after, 0.0)
        mask_a, mask_b = has_before.astype(float), has_after.astype(float)
        n = mask_a.T @ mask_b
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean_a, mean_b = (a.T @ mask_b) / n, (mask_a.T @ b) / n
            covariance = (a.T @ b) / n - mean_a * mean_b
            variance_a = ((a**2).T @ mask_b) / n - mean_a**2
            variance_b = (mask_a.T @ b**2) / n - mean_b**2
            self.of: Floats = np.clip(covariance / np.sqrt(variance_a * variance_b), -1.0, 1.0)
        self.common: Floats = n


def _judge(
    values: Floats,
    model_ids: Sequence[str],
    i: int,
    j: int,
    by_lag: Mapping[int, _Correlations],
    rules: CopyRules,
    *,
    may_be_equal: bool,
) -> CopyFound | None:
    at_once = by_lag[0]
    common = int(at_once.common[i, j])
    if common < rules.common_min:
        return None
    correlation = float(at_once.of[i, j])
    lag, earlier, later = _best_lag(by_lag, i, j, rules)
    # Comparing the values is expensive: only for a pair that may be one.
    if not (may_be_equal or np.isnan(correlation) or abs(correlation) >= rules.correlation_min or lag):
        return None
    both = ~(np.isnan(values[:, i]) | np.isnan(values[:, j]))
    a, b = values[both, i], values[both, j]
    equal_share = float(np.mean(np.abs(a - b) <= 10.0**-DIGITS * np.maximum(np.abs(a), np.abs(b))))
    distinct = min(len(np.unique(a)), len(np.unique(b)))
    if equal_share >= rules.equal_share_min:
        kind: Kind = "equal"
        lag, earlier, later = 0, i, j
    elif distinct < DISTINCT_MIN or np.isnan(correlation):
        return None
    elif abs(correlation) >= SCALED_MIN:
        kind, lag, earlier, later = "scaled", 0, i, j
    elif lag:
        kind = "lagged"
        correlation = float(by_lag[lag].of[earlier, later])
    elif abs(correlation) >= rules.correlation_min:
        kind = "noisy"
    else:
        return None
    return CopyFound(
        earlier=model_ids[earlier],
        later=model_ids[later],
        kind=kind,
        correlation=None if np.isnan(correlation) else correlation,
        equal_share=equal_share,
        scale=_scale(values, earlier, later, lag),
        lag=lag,
        common=common,
        distinct=distinct,
    )


def _best_lag(by_lag: Mapping[int, _Correlations], i: int, j: int, rules: CopyRules) -> tuple[int, int, int]:
    """(lag, index of the earlier, index of the later); lag 0 if no lag has a sufficient and higher correlation."""
    best, result = abs(by_lag[0].of[i, j]), (0, i, j)
    if np.isnan(best):
        return result
    for lag, correlations in by_lag.items():
        if not lag:
            continue
        for first, second in ((i, j), (j, i)):
            strength = abs(correlations.of[first, second])
            if (
                strength >= rules.correlation_min
                and strength > best
                and correlations.common[first, second] >= rules.common_min
            ):
                best, result = strength, (lag, first, second)
    return result


def _scale(values: Floats, earlier: int, later: int, lag: int) -> float | None:
    """The slope of `later` on `earlier` by least squares; None if `earlier` is constant."""
    a, b = values[: len(values) - lag, earlier], values[lag:, later]
    both = ~(np.isnan(a) | np.isnan(b))
    x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
    return float((x @ y) / (x @ x)) if x @ x > 0 else None
