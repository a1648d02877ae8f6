"""Trailing windows over the past periods of one model: each is the difference of two running totals.

The totals are integers, so the difference is exact. A window takes the same time however many periods are in it; to
sum a week of hours again at the end of each hour was too slow.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from coordinator.streams.events import PeriodCorrection, ScopeSum


class Totals(NamedTuple):
    """Sums over periods: units of the value field, number of values, number of scores, number of rehearsals."""

    sum_units: int = 0
    n: int = 0
    scored: int = 0
    rehearsals: int = 0


class Trail(msgspec.Struct):
    """The periods of one model in the order of their start (ms), as far back as a window may reach."""

    starts: list[int] = []
    totals: list[Totals] = []
    before: Totals = Totals()
    """The totals of the dropped periods, with which the running totals begin."""

    def __bool__(self) -> bool:
        return bool(self.starts)

    def add(self, start: int, sum_units: int, n: int, scored: int, *, rehearsal: bool) -> None:
        """Add a period that begins after all others."""
        last = self.totals[-1] if self.totals else self.before
        self.starts.append(start)
        self.totals.append(
            Totals(last[0] + sum_units, last[1] + n, last[2] + scored, last[3] + bool(rehearsal))
        )

    def amend(self, start: int, sum_units: int, n: int, scored: int) -> None:
        """Change a period that is there, or add one between others."""
        at = bisect_left(self.starts, start)
        if at == len(self.starts) or self.starts[at] != start:
            self.starts.insert(at, start)
            self.totals.insert(at, self.totals[at - 1] if at else self.before)
        for i in range(at, len(self.totals)):
            last = self.totals[i]
            self.totals[i] = Totals(last[0] + sum_units, last[1] + n, last[2] + scored, last[3])

    def since(self, from_ms: int) -> Totals:
        """The sums over the periods that start at or after `from_ms`."""
        if not self.totals:
            return Totals()
        first, last = bisect_left(self.starts, from_ms), self.totals[-1]
        before = self.totals[first - 1] if first else self.before
        return Totals(last[0] - before[0], last[1] - before[1], last[2] - before[2], last[3] - before[3])

    def start_of_newest(self, n: int) -> int:
        """The start (ms) of the fewest newest periods whose `n` sum to at least this (1 or more); of all if none do."""
        if not self.totals:
            return 0
        enough = self.totals[-1].n - n
        first = bisect_right(self.totals, enough, key=itemgetter(1))
        return self.starts[first]

    def drop_before(self, from_ms: int) -> None:
        """Drop the periods that start before `from_ms`."""
        first = bisect_left(self.starts, from_ms)
        if first:
            self.before = self.totals[first - 1]
            del self.starts[:first], self.totals[:first]

    def copy(self) -> Trail:
        """A copy that can be changed."""
        return Trail(self.starts.copy(), self.totals.copy(), self.before)


def drop_scope_trails(trails: dict[str, dict[str, Trail]], from_ms: int) -> None:
    """`drop_trails` for every model."""
    for model_id in list(trails):
        drop_trails(trails[model_id], from_ms)
        if not trails[model_id]:
            del trails[model_id]


def drop_trails(trails: dict[str, Trail], from_ms: int) -> None:
    """Drop the periods that start before `from_ms`, and the trails that have no other."""
    for name in list(trails):
        trails[name].drop_before(from_ms)
        if not trails[name]:
            del trails[name]


def take_sums(
    trail: Trail, start: int, own: Totals, corrected: Sequence[PeriodCorrection], from_ms: int
) -> None:
    """Add a period to a trail. What corrected truths change goes to its own period; those before `from_ms` are dropped.

    `own`: the sums of the period, with the corrections in them.
    """
    trail.add(
        start,
        own.sum_units - sum(change.sum_units for change in corrected),
        own.n - sum(change.n for change in corrected),
        own.scored - sum(change.scored for change in corrected),
        rehearsal=bool(own.rehearsals),
    )
    for change in corrected:
        if change.period_start >= from_ms:
            trail.amend(change.period_start, change.sum_units, change.n, change.scored)


def in_scope(corrected: Sequence[PeriodCorrection], scope: str) -> list[PeriodCorrection]:
    """The corrections of one scope."""
    return [
        PeriodCorrection(change.period_start, *_of_scope(change.scopes[scope]))
        for change in corrected
        if scope in change.scopes
    ]


def _of_scope(total: ScopeSum) -> tuple[int, int, int]:
    return total.sum_units, total.n, total.scored
