"""Computes the windows of a snapshot again, from all snapshots of the model, value by value.

Reads a `Chain`; returns the numbers. Pure. The stage carries sums from one period to the next; this code sums each
number anew, so that a fault of the stage does not confirm itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter
from typing import NamedTuple

from coordinator.streams.audit.facts import Chain
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    Answered,
    BoardTerms,
    FieldSum,
    PeriodCorrection,
    ScopeSum,
    SeriesValue,
    SnapshotTakenData,
    Terms,
    Window,
)
from coordinator.streams.scores.boards import board_units
from coordinator.streams.scores.units import mean_units


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
    sums_since = sums_kept_since(snapshot.period_start, chain)
    values_since = _values_kept_since(snapshot.period_start, chain, periods)
    scores_since = _scores_known_since(snapshot.period_start, chain)
    units: dict[str, int | None] = {}
    for window in terms.windows:
        first = snapshot.period_end - window.hours * HOUR_MS
        kept_since = sums_since if window.of_sums else values_since
        inside = [period for period in periods if period.period_start >= max(first, kept_since)]
        if window.combines:  # the terms list it after the windows that it combines
            units[window.name] = combined_again(window, units)
        elif window.rule == "ewma":
            units[window.name] = _ewma(window, chain, periods, first, snapshot.period_start)
        elif window.of_sums:
            units[window.name] = summed_again(window, inside)
        elif window.rule == "latest" and not window.last:
            since_any_score = max(first, scores_since)
            units[window.name] = _latest(
                window, inside, [period for period in periods if period.period_start >= since_any_score]
            )
        else:
            units[window.name] = _newest(window, inside)
    return units


def sums_kept_since(at: int, chain: Chain) -> int:
    """Since when (ms) a window over sums under the terms at `at` has its sums, whatever its length: under the terms
    before, their longest window said how long sums are kept.
    """
    return max(
        (
            until - terms.hours_max * HOUR_MS
            for start, until, terms in chain.terms.spans()
            if start < until <= at
        ),
        default=0,
    )


def _values_kept_since(at: int, chain: Chain, periods: Sequence[OldPeriod]) -> int:
    """As `sums_kept_since`, for windows that depend on the order of values. Under the terms before, values were kept
    for as long as the longest such window reached, and the newest periods that have enough values for the one that
    counts most. This is looked at when a value comes.
    """
    kept_since = 0
    for start, until, terms in chain.terms.spans():
        if not start < until <= at:
            continue
        kept_since = max(kept_since, until - terms.hours_in_order * HOUR_MS)
        is_first = terms is chain.terms.events[0].data
        before = [period for period in periods if period.series and period.period_start < until]
        if not before or (before[-1].period_start < start and not is_first):
            continue
        enough, oldest = max((window.values_max for window in terms.windows), default=0), until
        for period in reversed(before):
            if enough <= 0:
                break
            enough -= len(period.series)
            oldest = period.period_start
        kept_since = max(kept_since, oldest)
    return kept_since


def snapshots_of(chain: Chain, model_id: str) -> list[SnapshotTakenData]:
    """A model's snapshots, in the order of the log. Each snapshot's windows ask for all those before it: with a look
    through the snapshots of all models for each, the time would grow with the square of their number.
    """
    count, by_model = chain.snapshots_by_model
    if count != len(chain.snapshots):
        by_model = defaultdict(list)
        for snapshot in chain.snapshots.values():
            by_model[snapshot.model_id].append(snapshot)
        chain.snapshots_by_model = len(chain.snapshots), by_model
    return by_model.get(model_id, [])


def joined_at(own: Sequence[SnapshotTakenData]) -> int:
    """The start (ms) of the period in which a model joined that was given a past; 0 for one that was given none. What
    it was given stays, also under later terms that give newcomers nothing.
    """
    return max((data.joined.period_start for data in own if data.joined is not None), default=0)


def periods_of(snapshot: SnapshotTakenData, chain: Chain) -> list[OldPeriod]:
    """A model's periods up to a snapshot, the oldest first. Before it joined, they are those that newcomers are
    given.
    """
    own = [
        earlier
        for earlier in snapshots_of(chain, snapshot.model_id)
        if earlier.period_start < snapshot.period_end
    ]
    own_periods = _with_corrections(own, chain)
    joined = joined_at([*own, snapshot])
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


def _with_corrections(own: Sequence[SnapshotTakenData], chain: Chain) -> list[OldPeriod]:
    """The periods of a model's snapshots. What a corrected truth changes is in the sums of the snapshot in which it
    came, and counts in the period of the first truth. What it makes of the values in order stands in that snapshot.
    """
    periods: dict[int, OldPeriod] = {}

    def change(start: int, end: int, sign: int, by: PeriodCorrection) -> None:
        before = periods.get(start, OldPeriod(start, end, FieldSum(0, 0), 0, {}, []))
        scopes = dict(before.scopes)
        for scope, of_scope in by.scopes.items():
            was = scopes.get(scope, ScopeSum(0, 0, 0))
            scopes[scope] = ScopeSum(
                was.sum_units + sign * of_scope.sum_units,
                was.n + sign * of_scope.n,
                was.scored + sign * of_scope.scored,
            )
        total = FieldSum(before.total.sum_units + sign * by.sum_units, before.total.n + sign * by.n)
        scored_count = before.scored_count + sign * by.scored
        periods[start] = before._replace(total=total, scored_count=scored_count, scopes=scopes)

    for data in own:
        value_field = chain.terms.at(data.period_start).value_field
        total = data.sums.get(value_field, FieldSum(0, 0))
        periods[data.period_start] = OldPeriod(
            data.period_start, data.period_end, total, data.scored_count, data.scopes, data.series
        )
    for data in own:
        for correction in data.corrected:
            start, end = chain.terms.snapshot_period(correction.period_start)
            change(data.period_start, data.period_end, -1, correction)
            change(start, end, 1, correction)
        for earlier in data.restated:
            start, end = chain.terms.snapshot_period(earlier.period_start)
            before = periods.get(start, OldPeriod(start, end, FieldSum(0, 0), 0, {}, []))
            periods[start] = before._replace(series=earlier.series)
    return list(periods.values())


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
    kept_since = _rounds_kept_since(snapshot.period_start, chain, rounds_of)
    span: set[int] = set()
    rounds_count = 0
    for start in sorted(rounds_of, reverse=True):
        if start < kept_since:
            break
        is_inside = (
            start >= snapshot.period_end - coverage.hours * HOUR_MS
            if coverage.hours
            else rounds_count < coverage.rounds
        )
        if is_inside:
            span.add(start)
            rounds_count += rounds_of[start]
    # A period of the span without a round of its own may have what a corrected truth takes away from others.
    first = snapshot.period_end - coverage.hours * HOUR_MS if coverage.hours else min(span, default=0)
    own = [
        earlier
        for earlier in snapshots_of(chain, snapshot.model_id)
        if max(first, kept_since) <= earlier.period_start < snapshot.period_end
        and chain.terms.at(earlier.period_start).coverage
    ]
    excused_count = sum(earlier.excused_count for earlier in own)
    return Answered(sum(earlier.scored_count for earlier in own), rounds_count - excused_count)


def _rounds_kept_since(at: int, chain: Chain, rounds_of: Mapping[int, int]) -> int:
    """Since when (ms) rounds are kept for the coverage of the terms at `at`: the coverage of the terms before said how
    many.
    """
    kept_since = 0
    for start, until, terms in chain.terms.spans():
        coverage = terms.coverage
        if not start < until <= at or coverage is None:
            continue
        if coverage.hours:
            kept_since = max(kept_since, until - coverage.hours * HOUR_MS)
            continue
        enough = coverage.rounds
        for oldest in sorted((begin for begin in rounds_of if begin < until), reverse=True):
            if enough <= 0:
                break
            enough -= rounds_of[oldest]
            kept_since = max(kept_since, oldest) if enough <= 0 else kept_since
    return kept_since


def summed_again(window: Window, inside: Sequence[OldPeriod]) -> int | None:
    """The sum or mean over all values. None if there are charges alone: a model that was never scored has no number and
    no rank.
    """
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
    if window.rule == "latest":  # of the newest few
        return newest[-1][0]
    total = sum(units for units, _ in newest)
    return total if window.rule == "sum" else mean_units(total, len(newest))


def _latest(window: Window, inside: Sequence[OldPeriod], scored: Sequence[OldPeriod]) -> int | None:
    """The latest score or charge. None without any score within the window's hours, in `scored`."""
    values = [value for period in inside for value in period.series]
    has_score = any(value.scored for period in scored for value in period.series)
    return values[-1].units if values and has_score and len(values) >= window.least else None


def _ewma(window: Window, chain: Chain, periods: Sequence[OldPeriod], first: int, at: int) -> int | None:
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
        reaches_to = period.period_end - window_then.hours * HOUR_MS
        if newest < max(reaches_to, _scores_known_since(period.period_start, chain)):
            n = scored = 0
        # alpha as its decimal digits, and exact fractions: floats would give other units on other machines.
        alpha = Fraction(Decimal(repr(window_then.alpha)))
        for value in period.series:
            units = round(units + alpha * (value.units - units)) if n else value.units
            n, scored, newest = n + 1, scored + value.scored, period.period_start
    is_kept = newest >= max(first, _scores_known_since(at, chain))
    return units if scored and n >= window.least and is_kept else None


def _scores_known_since(at: int, chain: Chain) -> int:
    """Since when (ms) it is known under the terms at `at` that there was a score, and exponentially weighted means are
    kept: the terms may name a mean of before.
    """
    return chain.terms.kept_since(at, attrgetter("hours_in_order"))


def combined_again(window: Window, units_of: dict[str, int | None]) -> int | None:
    """The weighted mean of other windows; None if one of them has no number."""
    total = weights = Fraction(0)
    for name, weight in window.combines.items():
        units = units_of[name]
        if units is None:
            return None
        total, weights = total + Fraction(repr(weight)) * units, weights + Fraction(repr(weight))
    return round(total / weights)


def board_again(board: BoardTerms, terms: Terms, periods: Sequence[OldPeriod], end: int) -> int | None:
    """The number of a board over a window that ends at `end` (ms), from the scopes of a model's periods."""
    hours = next(window.hours for window in terms.windows if window.name == board.window)
    sums: dict[str, ScopeSum] = {}
    for period in periods:
        if period.period_start >= end - hours * HOUR_MS:
            for scope, of_period in period.scopes.items():
                before = sums.get(scope, ScopeSum(0, 0, 0))
                sums[scope] = ScopeSum(
                    before.sum_units + of_period.sum_units,
                    before.n + of_period.n,
                    before.scored + of_period.scored,
                )
    return board_units(board, sums)
