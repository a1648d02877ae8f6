"""What a model's closed periods leave for windows that need values in their order: the newest values, and EWMAs.

Follows from the stage's own snapshots alone. Kept only where the terms have such a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import SeriesValue, Terms, Window
from coordinator.streams.snapshots.windows import (
    NO_NUMBER,
    Number,
    Running,
    ewma_after,
    of_running,
    of_values,
)

HOUR_MS = 3_600_000


class OldValues(NamedTuple):
    """The values of a period, whether it was a rehearsal, and its start (ms)."""

    start: int
    values: list[SeriesValue]
    rehearsal: bool


class OldRunning(NamedTuple):
    """An EWMA, whether a rehearsal is in it, and the start (ms) of the last period that added to it."""

    start: int
    running: Running
    rehearsal: bool


class ModelPast(msgspec.Struct):
    """One model's closed periods, the oldest first."""

    periods: list[OldValues] = []
    ewmas: dict[str, OldRunning] = {}

    def __bool__(self) -> bool:
        return bool(self.periods or self.ewmas)

    def copy(self) -> ModelPast:
        """The same, to go on from without changing this one."""
        return ModelPast(list(self.periods), dict(self.ewmas))

    def take(
        self, told: TermsInForce, start: int, end: int, series: Sequence[SeriesValue], *, rehearsal: bool
    ) -> None:
        """Take in the period [start, end) (ms); later than all before it."""
        if not series:
            return
        since = told.comparable_since(start)
        windows = told.at(start).windows
        for window in windows:
            if window.rule != "ewma":
                continue
            old = self.ewmas.get(window.name)
            if old is not None and old.start < max(end - window.hours * HOUR_MS, since):
                old = None
            running = ewma_after(window.alpha, None if old is None else old.running, series)
            if running is not None:
                tainted = rehearsal or (old is not None and old.rehearsal)
                self.ewmas[window.name] = OldRunning(start, running, tainted)
        self.periods.append(OldValues(start, list(series), rehearsal))
        most = max((one.last or 1 for one in windows if one.in_order and one.rule != "ewma"), default=0)
        while self.periods and sum(len(one.values) for one in self.periods[1:]) >= most:
            del self.periods[0]

    def drop_before(self, told: TermsInForce, end: int, since: int) -> None:
        """Forget what no window of any terms reaches at a period's end (ms), nor anything before `since`."""
        windows = [window for _, _, terms in told.spans() for window in terms.windows if window.in_order]
        first = max(end - max((one.hours for one in windows), default=0) * HOUR_MS, since)
        self.periods = [one for one in self.periods if one.start >= first]
        self.ewmas = {name: one for name, one in self.ewmas.items() if one.start >= first}

    def number(self, window: Window, end: int, since: int) -> tuple[Number, bool]:
        """(the number of a window that needs an order at a period's end, whether a rehearsal is in it)."""
        first = max(end - window.hours * HOUR_MS, since)
        if window.rule == "ewma":
            old = self.ewmas.get(window.name)
            if old is None or old.start < first:
                return NO_NUMBER, False
            return of_running(window, old.running), old.rehearsal
        within = [one for one in self.periods if one.start >= first]
        values = [value for one in within for value in one.values]
        return of_values(window, values), any(one.rehearsal for one in within)


def needs_order(terms: Terms) -> bool:
    """Has the terms a window that needs values in their order?"""
    return any(window.in_order for window in terms.windows)
