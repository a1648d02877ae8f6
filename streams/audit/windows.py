"""The windows of a snapshot computed again: from the model's snapshots, value by value. Pure.

Other code than the stage's: nothing is carried from one period to the next, each number is summed anew.
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
    """One period [period_start, period_end) (ms) of a model, as windows look back on it."""

    period_start: int
    period_end: int
    total: FieldSum
    """Of the value field."""
    scored_count: int
    scopes: Mapping[str, ScopeSum]
    series: Sequence[SeriesValue]


def windows_again(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Window -> the model's number at the period's end, from its snapshots up to then."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    own = [one for one in periods_of(snapshot, chain) if one.period_start >= since]
    found: dict[str, int | None] = {}
    for window in terms.windows:
        first = snapshot.period_end - window.hours * HOUR_MS
        inside = [one for one in own if one.period_start >= first]
        if window.combines:
            found[window.name] = _combined(window, found)
        elif window.rule == "ewma":
            found[window.name] = _ewma(window, chain, own, first)
        elif window.of_sums:
            found[window.name] = _summed(window, inside)
        else:
            found[window.name] = _newest(window, inside)
    return found


def periods_of(snapshot: SnapshotTakenData, chain: Chain) -> list[OldPeriod]:
    """A model's periods up to a snapshot, the oldest first; those of before it joined as newcomers have them."""
    own = [
        one
        for one in chain.snapshots.values()
        if one.model_id == snapshot.model_id and one.period_start < snapshot.period_end
    ]
    joined = snapshot.joined.period_start if snapshot.joined is not None else 0
    periods = [
        OldPeriod(
            one.period_start,
            one.period_end,
            one.sums.get(chain.terms.at(one.period_start).value_field, FieldSum(0, 0)),
            one.scored_count,
            one.scopes,
            one.series,
        )
        for one in own
    ] + [
        OldPeriod(
            one.from_ms,
            one.until_ms,
            one.newcomer_past.total,
            0,
            one.newcomer_past.scopes,
            one.newcomer_past.series,
        )
        for one in chain.periods.values()
        if one.newcomer_past is not None and one.from_ms < joined
    ]
    return sorted(periods, key=lambda one: one.period_start)


def covered_again(snapshot: SnapshotTakenData, chain: Chain) -> Answered | None:
    """What the model answered of the span that the terms' coverage names, from the counts of its snapshots."""
    wanted = chain.terms.at(snapshot.period_start).coverage
    if wanted is None:
        return None
    periods = {
        one.from_ms: one.rounds_count
        for one in chain.periods.values()
        if one.from_ms < snapshot.period_end and one.rounds_count and chain.terms.at(one.from_ms).coverage
    }
    span: set[int] = set()
    rounds = 0
    for start in sorted(periods, reverse=True):
        inside = (
            start >= snapshot.period_end - wanted.hours * HOUR_MS if wanted.hours else rounds < wanted.rounds
        )
        if inside:
            span.add(start)
            rounds += periods[start]
    own = [
        one
        for one in chain.snapshots.values()
        if one.model_id == snapshot.model_id and one.period_start in span
    ]
    return Answered(sum(one.scored_count for one in own), rounds - sum(one.excused_count for one in own))


def _summed(window: Window, inside: Sequence[OldPeriod]) -> int | None:
    total, n = sum(one.total.sum_units for one in inside), sum(one.total.n for one in inside)
    if not any(one.scored_count for one in inside) or n < window.least:
        return None
    return total if window.rule == "sum" else mean_units(total, n)


def _newest(window: Window, inside: Sequence[OldPeriod]) -> int | None:
    values = [(value.units, value.scored) for one in inside for value in one.series]
    chosen = values[-window.last :] if window.last else values
    if not any(scored for _, scored in chosen) or len(chosen) < window.least:
        return None
    if window.rule == "latest":
        return chosen[-1][0]
    total = sum(units for units, _ in chosen)
    return total if window.rule == "sum" else mean_units(total, len(chosen))


def _ewma(window: Window, chain: Chain, own: Sequence[OldPeriod], first: int) -> int | None:
    """Each period by the terms that held in it; begun anew where nothing came for as long as the window was."""
    units, n, scored, newest = 0, 0, 0, -1
    for snapshot in own:
        windows = chain.terms.at(snapshot.period_start).windows
        held = next((one for one in windows if (one.name, one.rule) == (window.name, "ewma")), None)
        if held is None or not snapshot.series:
            continue
        if newest < snapshot.period_end - held.hours * HOUR_MS:
            n = scored = 0
        alpha = Fraction(Decimal(repr(held.alpha)))
        for value in snapshot.series:
            units = round(units + alpha * (value.units - units)) if n else value.units
            n, scored, newest = n + 1, scored + value.scored, snapshot.period_start
    return units if scored and n >= window.least and newest >= first else None


def _combined(window: Window, found: dict[str, int | None]) -> int | None:
    total = weights = Fraction(0)
    for name, weight in window.combines.items():
        units = found[name]
        if units is None:
            return None
        total, weights = total + Fraction(repr(weight)) * units, weights + Fraction(repr(weight))
    return round(total / weights)
