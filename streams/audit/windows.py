"""The windows of a snapshot computed again: from the model's snapshots, value by value. Pure.

Other code than the stage's: nothing is carried from one period to the next, each number is summed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from coordinator.streams.audit.facts import Chain
from coordinator.streams.events import SnapshotTakenData, Terms, Window
from coordinator.streams.scores.units import mean_units

HOUR_MS = 3_600_000


def windows_again(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Window -> the model's number at the period's end, from its snapshots up to then."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    own = sorted(
        (
            one
            for one in chain.snapshots.values()
            if one.model_id == snapshot.model_id and since <= one.period_start < snapshot.period_end
        ),
        key=lambda one: one.period_start,
    )
    found: dict[str, int | None] = {}
    for window in terms.windows:
        first = snapshot.period_end - window.hours * HOUR_MS
        inside = [one for one in own if one.period_start >= first]
        if window.combines:
            found[window.name] = _combined(window, found)
        elif window.rule == "ewma":
            found[window.name] = _ewma(window, chain, own, first)
        elif window.of_sums:
            found[window.name] = _summed(window, terms, inside)
        else:
            found[window.name] = _newest(window, inside)
    return found


def _summed(window: Window, terms: Terms, inside: Sequence[SnapshotTakenData]) -> int | None:
    sums = [one.sums[terms.value_field] for one in inside if terms.value_field in one.sums]
    total, n = sum(one.sum_units for one in sums), sum(one.n for one in sums)
    if not any(one.scored_count for one in inside) or n < window.least:
        return None
    return total if window.rule == "sum" else mean_units(total, n)


def _newest(window: Window, inside: Sequence[SnapshotTakenData]) -> int | None:
    values = [(value.units, value.scored) for one in inside for value in one.series]
    chosen = values[-window.last :] if window.last else values
    if not any(scored for _, scored in chosen) or len(chosen) < window.least:
        return None
    if window.rule == "latest":
        return chosen[-1][0]
    total = sum(units for units, _ in chosen)
    return total if window.rule == "sum" else mean_units(total, len(chosen))


def _ewma(window: Window, chain: Chain, own: Sequence[SnapshotTakenData], first: int) -> int | None:
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
