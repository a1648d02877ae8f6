"""What one period says about each model beyond its sums: the contract's own aggregate, and its metrics.

The stage computes it when it closes a period, and the audit computes it again by these same functions.
numpy is loaded by the first contract that has metrics; a node without them never pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.metrics import Metrics
from coordinator.streams.log.finite import numbers_of
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.scorer import validator
from coordinator.streams.scores.units import to_float, to_units

if TYPE_CHECKING:
    from coordinator.streams.snapshots.metrics import PeriodSeries

Scored = tuple[int, str, str, Mapping[str, int]]
"""(resolvable_at ms, input_id, scope_key, score field -> units)"""
Weights = Mapping[tuple[int, str, str], Mapping[str, int]]
"""(resolvable_at ms, input_id, scope_key) -> model -> what it weighs in the ensemble that metrics compare with."""


class Summary(NamedTuple):
    """One model's summary in units by name; `error` says why something is missing, empty where nothing is."""

    units: dict[str, int]
    error: str


NO_SCORES = Summary({}, "")


def summaries(
    contract: CrunchContract, scores: Mapping[str, Sequence[Scored]], weights: Weights | None = None
) -> dict[str, Summary]:
    """Every model's summary over its scores of one period, in whatever order they come.

    An ensemble is measured by itself, so that none of them is among the models that another is compared with.

    What the author's functions raise, or give that is no finite number, is left out and named; it stops nothing, and
    the period's sums do not depend on it.
    """
    in_order = {model_id: sorted(column, key=_place) for model_id, column in scores.items() if column}
    models = {model_id: column for model_id, column in in_order.items() if not is_ensemble(model_id)}
    measured = _metrics(contract, models, weights or {})
    for model_id in in_order.keys() - models.keys():
        measured |= _metrics(contract, {model_id: in_order[model_id]}, {})
    found: dict[str, Summary] = {}
    for model_id, column in in_order.items():
        own, metrics = _aggregate(contract, column), measured.get(model_id, NO_SCORES)
        twice = sorted(own.units.keys() & metrics.units.keys())
        clash = as_reason(f"aggregate_snapshot and a metric both give {twice}") if twice else ""
        units = dict(sorted((own.units | metrics.units).items()))
        found[model_id] = Summary(units, "; ".join(filter(None, (own.error, metrics.error, clash))))
    return found


def _place(scored: Scored) -> tuple[int, str, str]:
    return scored[:3]


def _aggregate(contract: CrunchContract, scores: Sequence[Scored]) -> Summary:
    """The contract's own aggregate, rounded to units."""
    as_result = validator(contract.score_type)
    decimals = contract.score_decimals
    try:
        results = [
            as_result({name: to_float(units, decimals) for name, units in one[3].items()}) for one in scores
        ]
        numbers = numbers_of(contract.aggregate_snapshot(results))
        return Summary({name: to_units(value, decimals) for name, value in sorted(numbers.items())}, "")
    except AUTHORS_ERRORS as error:
        return Summary({}, as_reason(f"aggregate_snapshot: {type(error).__name__}: {error}"))


def _metrics(
    contract: CrunchContract, scores: Mapping[str, Sequence[Scored]], weights: Weights
) -> dict[str, Summary]:
    """Every model's metrics, without those that are undefined."""
    metrics = contract.aggregation.metrics
    if metrics is None or not scores:
        return {}
    from coordinator.streams.snapshots.metrics import functions_of  # noqa: PLC0415

    series = _series(contract, metrics, scores, weights)
    found: dict[str, Summary] = {}
    for i, model_id in enumerate(series.model_ids):
        units: dict[str, int] = {}
        errors: list[str] = []
        for name, function in functions_of(metrics).items():
            try:
                value = function(series, i)
                if value is not None:
                    units[name] = to_units(value, contract.score_decimals)
            except AUTHORS_ERRORS as error:
                errors.append(f"metric {name}: {type(error).__name__}: {error}")
        found[model_id] = Summary(units, as_reason("; ".join(errors)) if errors else "")
    return found


def _series(
    contract: CrunchContract, metrics: Metrics, scores: Mapping[str, Sequence[Scored]], weights: Weights
) -> PeriodSeries:
    """The scores as columns: models by id, rounds by resolvable time, input and scope."""
    import numpy as np  # noqa: PLC0415

    from coordinator.streams.snapshots.metrics import PeriodSeries  # noqa: PLC0415

    model_ids = sorted(scores)
    places = sorted({_place(one) for column in scores.values() for one in column})
    row_of = {place: row for row, place in enumerate(places)}
    signals = np.full((len(places), len(model_ids)), np.nan)
    values = np.full_like(signals, np.nan)
    outcomes = np.full(len(places), np.nan)
    nan = float("nan")
    for column, model_id in enumerate(model_ids):
        for scored in scores[model_id]:
            row, units = row_of[_place(scored)], scored[3]
            signals[row, column] = units.get(metrics.signal_field, nan)
            values[row, column] = units.get(contract.aggregation.value_field, nan)
            outcomes[row] = units.get(metrics.outcome_field, outcomes[row])
    return PeriodSeries(
        model_ids,
        signals,
        values,
        outcomes,
        unit=10.0**-contract.score_decimals,
        chunks=metrics.chunks,
        weights=np.array(
            [[weights.get(place, {}).get(model_id, 0) for model_id in model_ids] for place in places],
            dtype=np.float64,
        )
        if metrics.ensemble
        else None,
    )
