"""The past of a model for windows that depend on the order of values: the newest values, and EWMAs.

A value, folded from the stage's own snapshots. It is kept only if the terms have such a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import SeriesValue, Terms, Window
from coordinator.streams.snapshots.windows import (
    NO_NUMBER,
    Number,
    Running,
    ewma_after,
    latest_of,
    of_running,
    of_values,
)


class OldValues(NamedTuple):
    """The values of one period, its start (ms), and whether it was a rehearsal."""

    start: int
    values: list[SeriesValue]
    rehearsal: bool


class OldRunning(NamedTuple):
    """An EWMA, the start (ms) of the last period that added a value, and whether a rehearsal is in it."""

    start: int
    running: Running
    rehearsal: bool


class ModelPast(msgspec.Struct):
    """The closed periods of one model, the oldest first, and its EWMAs."""

    periods: list[OldValues] = []
    ewmas: dict[str, OldRunning] = {}
    """Window -> its EWMA."""
    scored_at: int = -1
    """The start (ms) of the newest period with a score; it may be of before the oldest in `periods`."""
    settled: ModelPast | None = None
    """What it was when the checkpoint period began in which the newest period is; only where truths are posted."""
    settled_until: int = -1
    """The start of that checkpoint period (ms)."""
    open: list[OldValues] = []
    """The periods since then: a truth that is corrected in time changes their values."""

    def __bool__(self) -> bool:
        return bool(self.periods or self.ewmas)

    def copy(self) -> ModelPast:
        """A copy that can be changed."""
        return ModelPast(
            list(self.periods),
            dict(self.ewmas),
            self.scored_at,
            self.settled,
            self.settled_until,
            list(self.open),
        )

    def take(
        self, told: TermsInForce, start: int, end: int, series: Sequence[SeriesValue], *, rehearsal: bool
    ) -> None:
        """Add the period [start, end) (ms), after all periods that were added before."""
        if not series:
            return
        if told.at(start).questions is not None:
            self._settle(told.checkpoint_period(start)[0])
            self.open.append(OldValues(start, list(series), rehearsal))
        self._add(told, start, end, series, rehearsal=rehearsal)

    def restate(
        self, told: TermsInForce, start: int, series: Sequence[SeriesValue], *, rehearsal: bool
    ) -> None:
        """Give the period that begins at `start` (ms), of the running checkpoint period, other values."""
        self._settle(told.checkpoint_period(start)[0])
        others = [period for period in self.open if period.start != start]
        again = [OldValues(start, list(series), rehearsal)] if series else []
        self.open = sorted(others + again, key=attrgetter("start"))
        base = self.settled or ModelPast()
        self.periods, self.ewmas, self.scored_at = list(base.periods), dict(base.ewmas), base.scored_at
        for period in self.open:
            _, end = told.snapshot_period(period.start)
            self._add(told, period.start, end, period.values, rehearsal=period.rehearsal)

    def _settle(self, checkpoint_start: int) -> None:
        """If another checkpoint period begins (ms): what is here changes no more."""
        if self.settled_until != checkpoint_start:
            self.settled = ModelPast(list(self.periods), dict(self.ewmas), self.scored_at)
            self.settled_until, self.open = checkpoint_start, []

    def _add(
        self, told: TermsInForce, start: int, end: int, series: Sequence[SeriesValue], *, rehearsal: bool
    ) -> None:
        since = told.comparable_since(start)
        windows = told.at(start).windows
        for window in windows:
            if window.rule != "ewma":
                continue
            old = self.ewmas.get(window.name)
            if old is not None and old.start < max(end - window.hours * HOUR_MS, since):
                old = None  # no value for as long as the window is, or scored under other rules: the EWMA restarts
            running = ewma_after(window.alpha, None if old is None else old.running, series)
            if running is not None:
                has_rehearsal = rehearsal or (old is not None and old.rehearsal)
                self.ewmas[window.name] = OldRunning(start, running, has_rehearsal)
        self.periods.append(OldValues(start, list(series), rehearsal))
        if any(value.scored for value in series):
            self.scored_at = start
        # Drop the oldest period while the others have enough values for the longest window.
        most = max((window.values_max for window in windows), default=0)
        while self.periods and sum(len(period.values) for period in self.periods[1:]) >= most:
            del self.periods[0]

    def drop_before(self, told: TermsInForce, end: int, since: int) -> None:
        """Drop what no window reaches from `end` (ms), and everything before `since` (ms)."""
        first = max(told.reach(end, attrgetter("hours_in_order")), since)
        self.periods = [period for period in self.periods if period.start >= first]
        self.ewmas = {name: ewma for name, ewma in self.ewmas.items() if ewma.start >= first}
        if self.scored_at < first:
            self.scored_at = -1

    def number(self, window: Window, end: int, since: int) -> tuple[Number, bool]:
        """(number of a window that depends on the order, at a period's end; whether a rehearsal is in it)."""
        first = max(end - window.hours * HOUR_MS, since)
        if window.rule == "ewma":
            old = self.ewmas.get(window.name)
            if old is None or old.start < first:
                return NO_NUMBER, False
            return of_running(window, old.running), old.rehearsal
        inside = [period for period in self.periods if period.start >= first]
        values = [value for period in inside for value in period.values]
        if window.rule == "latest" and not window.last:
            return latest_of(window, values, has_score=self.scored_at >= first), any(
                period.rehearsal for period in inside
            )
        return of_values(window, values), any(period.rehearsal for period in inside)


def needs_order(terms: Terms) -> bool:
    """Whether the terms have a window that depends on the order of values."""
    return any(window.in_order for window in terms.windows)
