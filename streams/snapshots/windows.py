"""The number of one model in each window of the terms: from sums, from values in their order, from other windows.

Pure and exact: sums are integers of units, a mean or a weighted mean is rounded half-even once, an EWMA at each step.
Charges alone are no number: silence would rank above every losing model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from coordinator.streams.events import SeriesValue, Window
from coordinator.streams.scores.units import mean_units, weighted_mean_units


class Number(NamedTuple):
    """A window's number in units, None where there is none, and how many scores are in it."""

    units: int | None
    scored: int


NO_NUMBER = Number(None, 0)


class Running(NamedTuple):
    """An EWMA so far: units, how many values made it, and how many of them are scores."""

    units: int
    n: int
    scored: int


def of_sums(window: Window, sum_units: int, n: int, scored: int) -> Number:
    """The number of a window that follows from a sum over n values, of which so many are scores."""
    if not scored or n < window.least:
        return Number(None, scored)
    return Number(sum_units if window.rule == "sum" else mean_units(sum_units, n), scored)


def of_values(window: Window, values: Sequence[SeriesValue]) -> Number:
    """The number of a window of the newest values, the oldest first."""
    chosen = values[-window.last :] if window.last else values
    scored = sum(one.scored for one in chosen)
    if scored and window.rule == "latest":
        return Number(chosen[-1].units if len(chosen) >= window.least else None, scored)
    return of_sums(window, sum(one.units for one in chosen), len(chosen), scored)


def ewma_after(alpha: float, before: Running | None, values: Iterable[SeriesValue]) -> Running | None:
    """The EWMA once these values, in their order, are taken in; None before the first."""
    weight = Fraction(repr(alpha))
    running = before
    for one in values:
        if running is None:
            running = Running(one.units, 1, int(one.scored))
        else:
            units = round(running.units + weight * (one.units - running.units))
            running = Running(units, running.n + 1, running.scored + one.scored)
    return running


def of_running(window: Window, running: Running) -> Number:
    """The number of an EWMA window."""
    there = running.scored and running.n >= window.least
    return Number(running.units if there else None, running.scored)


def numbers_of_windows(windows: Sequence[Window], number: Callable[[Window], Number]) -> dict[str, Number]:
    """Window -> the model's number, in order; those that combine others come from the ones before them."""
    found: dict[str, Number] = {}
    for window in windows:
        if window.combines:
            parts = [(Fraction(repr(weight)), found[name]) for name, weight in window.combines.items()]
            found[window.name] = Number(
                weighted_mean_units(
                    (weight, None if one.units is None else Fraction(one.units)) for weight, one in parts
                ),
                sum(one.scored for _, one in parts),
            )
        else:
            found[window.name] = number(window)
    return found
