"""Computes the summary of each model's period: the contract's own aggregate, and its metrics.

Pure. The stage calls it when it closes a period, and the audit calls the same functions again. numpy is imported by the
first contract that has metrics, because it takes memory that a node without metrics does not need.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coordinator.streams.contract import CrunchContract, defaults
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.metrics import Metrics
from coordinator.streams.contract.types import validator
from coordinator.streams.log.finite import numbers_of
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.direct_numbers import Number, direct_numbers
from coordinator.streams.scores.units import to_float, to_units

if TYPE_CHECKING:
    from coordinator.streams.snapshots.metrics import PeriodSeries

Scored = tuple[int, str, str, Mapping[str, int]]
"""(resolvable_at ms, input_id, scope_key, score field -> units)"""
Weights = Mapping[tuple[int, str, str], Mapping[str, int]]
"""(resolvable_at ms, input_id, scope_key) -> model -> its weight in the ensemble with which metrics compare."""


class Summary(NamedTuple):
    """One model's summary: name -> units. `error` says why something is missing; "" if nothing is."""

    units: dict[str, int]
    error: str


NO_SCORES = Summary({}, "")


def summaries(
    contract: CrunchContract,
    scores: Mapping[str, Sequence[Scored]],
    weights: Weights | None = None,
    only: str | None = None,
) -> dict[str, Summary]:
    """model_id -> its summary over its scores of one period, of every model or of `only` one beside the others. The
    order of the scores does not matter.

    Each ensemble is measured alone, so that no model is compared with an ensemble.

    If a function of the author raises, or returns a number that is not finite, that number is missing and `error` says
    why. The period is closed all the same, because its sums do not depend on it.
    """
    in_order = {model_id: sorted(column, key=_place) for model_id, column in scores.items() if column}
    models = {model_id: column for model_id, column in in_order.items() if not is_ensemble(model_id)}
    wanted = in_order if only is None else {name: in_order[name] for name in (only,) if name in in_order}
    measured = _metrics(contract, models, weights or {}, wanted.keys() & models.keys())
    for model_id in wanted.keys() - models.keys():
        measured |= _metrics(contract, {model_id: in_order[model_id]}, {}, {model_id})
    summary_of: dict[str, Summary] = {}
    for model_id, column in wanted.items():
        own, metrics = _aggregate(contract, column), measured.get(model_id, NO_SCORES)
        twice = sorted(own.units.keys() & metrics.units.keys())
        clash = as_reason(f"aggregate_snapshot and a metric both give {twice}") if twice else ""
        units = dict(sorted((own.units | metrics.units).items()))
        summary_of[model_id] = Summary(units, "; ".join(filter(None, (own.error, metrics.error, clash))))
    return summary_of


def _place(scored: Scored) -> tuple[int, str, str]:
    return scored[:3]


def _aggregate(contract: CrunchContract, scores: Sequence[Scored]) -> Summary:
    """The contract's own aggregate, rounded to units."""
    as_result = validator(contract.score_type)
    decimals = contract.score_decimals
    try:
        numbers = _means(contract, scores)
        if numbers is None:
            results = [
                as_result({field: to_float(units, decimals) for field, units in scored[3].items()})
                for scored in scores
            ]
            numbers = numbers_of(contract.aggregate_snapshot(results))
        return Summary({name: to_units(value, decimals) for name, value in sorted(numbers.items())}, "")
    except AUTHORS_ERRORS as error:
        return Summary({}, as_reason(f"aggregate_snapshot: {in_words(error)}"))


def _means(contract: CrunchContract, scores: Sequence[Scored]) -> dict[str, Number] | None:
    """What the default `aggregate_snapshot` gives, with the same sums of floats in the same order, but without a
    pydantic object for each score; None where the contract's own function must be called.
    """
    direct = direct_numbers(contract.score_type)
    if direct is None or contract.aggregate_snapshot is not defaults.aggregate_snapshot:
        return None
    decimals = contract.score_decimals
    sums: dict[str, Number] = {}
    counts: dict[str, int] = {}
    for scored in scores:
        numbers = direct.of({field: to_float(units, decimals) for field, units in scored[3].items()})
        if numbers is None:
            return None
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0.0) + value
            counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


def _metrics(
    contract: CrunchContract,
    scores: Mapping[str, Sequence[Scored]],
    weights: Weights,
    wanted: Collection[str],
) -> dict[str, Summary]:
    """model_id -> its metrics, without those that are undefined; of the `wanted` among the models."""
    metrics = contract.aggregation.metrics
    if metrics is None or not wanted:
        return {}
    from coordinator.streams.snapshots.metrics import functions_of  # noqa: PLC0415

    series = _series(contract, metrics, scores, weights)
    metrics_of: dict[str, Summary] = {}
    for i, model_id in enumerate(series.model_ids):
        if model_id not in wanted:
            continue
        units: dict[str, int] = {}
        errors: list[str] = []
        for name, function in functions_of(metrics).items():
            try:
                value = function(series, i)
                if value is not None:
                    units[name] = to_units(value, contract.score_decimals)
            except AUTHORS_ERRORS as error:
                errors.append(f"metric {name}: {in_words(error)}")
        metrics_of[model_id] = Summary(units, as_reason("; ".join(errors)) if errors else "")
    return metrics_of


def _series(
    contract: CrunchContract, metrics: Metrics, scores: Mapping[str, Sequence[Scored]], weights: Weights
) -> PeriodSeries:
    """The scores as arrays: columns are models by id, rows are rounds by resolvable time, input and scope."""
    import numpy as np  # noqa: PLC0415

    from coordinator.streams.snapshots.metrics import PeriodSeries  # noqa: PLC0415

    model_ids = sorted(scores)
    places = sorted({_place(scored) for column in scores.values() for scored in column})
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
