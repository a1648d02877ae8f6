"""Computes the number of one model in each window of the terms: from sums, from values in order, or from other windows.

Pure and exact: sums are integers of units. A mean or a weighted mean is rounded half to even once, an EWMA after each
value. A model with charges alone has no number: otherwise silence would rank above every model that loses more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from coordinator.streams.events import SeriesValue, Window
from coordinator.streams.scores.units import mean_units, weighted_mean_units


class Number(NamedTuple):
    """The number of a window in units (None if it has none), and how many scores are in it."""

    units: int | None
    scored: int


NO_NUMBER = Number(None, 0)


class Running(NamedTuple):
    """An EWMA so far: its units, the number of its values, and how many of these are scores."""

    units: int
    n: int
    scored: int


def of_sums(window: Window, sum_units: int, n: int, scored: int) -> Number:
    """The number of a window from the sum over `n` values, `scored` of which are scores."""
    if not scored or n < window.least:
        return Number(None, scored)
    return Number(sum_units if window.rule == "sum" else mean_units(sum_units, n), scored)


def of_values(window: Window, values: Sequence[SeriesValue]) -> Number:
    """The number of a window over the newest values; `values` are in order, the oldest first."""
    newest = values[-window.last :] if window.last else values
    scored = sum(value.scored for value in newest)
    if scored and window.rule == "latest":
        return Number(newest[-1].units if len(newest) >= window.least else None, scored)
    return of_sums(window, sum(value.units for value in newest), len(newest), scored)


def latest_of(window: Window, values: Sequence[SeriesValue], *, has_score: bool) -> Number:
    """The latest value, be it a score or a charge, if there was any score within the window's hours.

    `values` are in order, and at least as many as the window asks for (`least`), if it has as many.
    """
    newest = values[-window.values_max :]
    scored = sum(value.scored for value in newest)
    return Number(newest[-1].units if newest and has_score and len(newest) >= window.least else None, scored)


def ewma_after(alpha: float, before: Running | None, values: Iterable[SeriesValue]) -> Running | None:
    """The EWMA after these values, in their order; None if there was no value yet.

    m' = m + alpha * (value - m), in exact fractions and rounded to units after each value, so that every machine gets
    the same units.
    """
    weight = Fraction(repr(alpha))
    running = before
    for value in values:
        if running is None:
            running = Running(value.units, 1, int(value.scored))
        else:
            units = round(running.units + weight * (value.units - running.units))
            running = Running(units, running.n + 1, running.scored + value.scored)
    return running


def of_running(window: Window, running: Running) -> Number:
    """The number of an EWMA window."""
    has_number = running.scored and running.n >= window.least
    return Number(running.units if has_number else None, running.scored)


def numbers_of_windows(windows: Sequence[Window], number: Callable[[Window], Number]) -> dict[str, Number]:
    """Window -> the model's number, in order. A window that combines others comes after them."""
    numbers: dict[str, Number] = {}
    for window in windows:
        if window.combines:
            parts = [(Fraction(repr(weight)), numbers[name]) for name, weight in window.combines.items()]
            numbers[window.name] = Number(
                weighted_mean_units(
                    (weight, None if part.units is None else Fraction(part.units)) for weight, part in parts
                ),
                # All windows end now: the scores of the shortest are in the longest, too, and count once.
                max(part.scored for _, part in parts),
            )
        else:
            numbers[window.name] = number(window)
    return numbers
