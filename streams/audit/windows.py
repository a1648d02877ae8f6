"""Computes the windows of a snapshot again, from all snapshots of the model, value by value.

Reads a `Chain`; returns the numbers. Pure. The stage carries sums from one period to the next; this code sums each
number anew, so that a fault of the stage does not confirm itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from coordinator.streams.audit.facts import Chain
from coordinator.streams.events import Answered, FieldSum, ScopeSum, SeriesValue, SnapshotTakenData, Window
from coordinator.streams.scores.units import mean_units

HOUR_MS = 3_600_000


class OldPeriod(NamedTuple):
    """One period [period_start, period_end) in ms of a model, as its windows see it."""

    period_start: int
    period_end: int
    total: FieldSum
    """The sum over the value field."""
    scored_count: int
    scopes: Mapping[str, ScopeSum]
    series: Sequence[SeriesValue]


def windows_again(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Window -> the model's number at the period's end, from its snapshots up to then."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    periods = [period for period in periods_of(snapshot, chain) if period.period_start >= since]
    units: dict[str, int | None] = {}
    for window in terms.windows:
        first = snapshot.period_end - window.hours * HOUR_MS
        inside = [period for period in periods if period.period_start >= first]
        if window.combines:  # the terms list it after the windows that it combines
            units[window.name] = _combined(window, units)
        elif window.rule == "ewma":
            units[window.name] = _ewma(window, chain, periods, first)
        elif window.of_sums:
            units[window.name] = _summed(window, inside)
        else:
            units[window.name] = _newest(window, inside)
    return units


def periods_of(snapshot: SnapshotTakenData, chain: Chain) -> list[OldPeriod]:
    """A model's periods up to a snapshot, the oldest first. Before it joined, they are those that newcomers are
    given.
    """
    own_periods = [
        OldPeriod(
            earlier.period_start,
            earlier.period_end,
            earlier.sums.get(chain.terms.at(earlier.period_start).value_field, FieldSum(0, 0)),
            earlier.scored_count,
            earlier.scopes,
            earlier.series,
        )
        for earlier in chain.snapshots.values()
        if earlier.model_id == snapshot.model_id and earlier.period_start < snapshot.period_end
    ]
    joined = snapshot.joined.period_start if snapshot.joined is not None else 0
    newcomer_periods = [
        OldPeriod(
            period.from_ms,
            period.until_ms,
            period.newcomer_past.total,
            0,
            period.newcomer_past.scopes,
            period.newcomer_past.series,
        )
        for period in chain.periods.values()
        if period.newcomer_past is not None and period.from_ms < joined
    ]
    return sorted(own_periods + newcomer_periods, key=lambda period: period.period_start)


def covered_again(snapshot: SnapshotTakenData, chain: Chain) -> Answered | None:
    """How many rounds the model answered, of those of the span that the terms' coverage names; None without a coverage.

    The span is a number of hours, or the newest periods that have a number of rounds together.
    """
    coverage = chain.terms.at(snapshot.period_start).coverage
    if coverage is None:
        return None
    rounds_of = {
        period.from_ms: period.rounds_count
        for period in chain.periods.values()
        if period.from_ms < snapshot.period_end
        and period.rounds_count
        and chain.terms.at(period.from_ms).coverage
    }
    span: set[int] = set()
    rounds_count = 0
    for start in sorted(rounds_of, reverse=True):
        is_inside = (
            start >= snapshot.period_end - coverage.hours * HOUR_MS
            if coverage.hours
            else rounds_count < coverage.rounds
        )
        if is_inside:
            span.add(start)
            rounds_count += rounds_of[start]
    own = [
        earlier
        for earlier in chain.snapshots.values()
        if earlier.model_id == snapshot.model_id and earlier.period_start in span
    ]
    excused_count = sum(earlier.excused_count for earlier in own)
    return Answered(sum(earlier.scored_count for earlier in own), rounds_count - excused_count)


def _summed(window: Window, inside: Sequence[OldPeriod]) -> int | None:
    """The sum or mean over all values. None with charges alone: who was never scored has no number, and no rank."""
    total, n = sum(period.total.sum_units for period in inside), sum(period.total.n for period in inside)
    if not any(period.scored_count for period in inside) or n < window.least:
        return None
    return total if window.rule == "sum" else mean_units(total, n)


def _newest(window: Window, inside: Sequence[OldPeriod]) -> int | None:
    """The number over the last `window.last` values (all if 0), which may be of several periods."""
    values = [(value.units, value.scored) for period in inside for value in period.series]
    newest = values[-window.last :] if window.last else values
    if not any(scored for _, scored in newest) or len(newest) < window.least:
        return None
    if window.rule == "latest":
        return newest[-1][0]
    total = sum(units for units, _ in newest)
    return total if window.rule == "sum" else mean_units(total, len(newest))


def _ewma(window: Window, chain: Chain, periods: Sequence[OldPeriod], first: int) -> int | None:
    """The exponentially weighted mean. Each period counts by the terms that held in it.

    The mean starts anew if no value came for as long as the window is.
    """
    units, n, scored, newest = 0, 0, 0, -1
    for period in periods:
        windows = chain.terms.at(period.period_start).windows
        window_then = next(
            (other for other in windows if (other.name, other.rule) == (window.name, "ewma")), None
        )
        if window_then is None or not period.series:
            continue
        if newest < period.period_end - window_then.hours * HOUR_MS:
            n = scored = 0
        # alpha as its decimal digits, and exact fractions: floats would give other units on other machines.
        alpha = Fraction(Decimal(repr(window_then.alpha)))
        for value in period.series:
            units = round(units + alpha * (value.units - units)) if n else value.units
            n, scored, newest = n + 1, scored + value.scored, period.period_start
    return units if scored and n >= window.least and newest >= first else None


def _combined(window: Window, units_of: dict[str, int | None]) -> int | None:
    """The weighted mean of other windows; None if one of them has no number."""
    total = weights = Fraction(0)
    for name, weight in window.combines.items():
        units = units_of[name]
        if units is None:
            return None
        total, weights = total + Fraction(repr(weight)) * units, weights + Fraction(repr(weight))
    return round(total / weights)
