"""Trailing windows over one model's past periods, each a difference of two running totals.

Integers, so that the difference is exact. A window costs the same however many periods are in it: summed anew at each
close, a full week of hours made the ten thousandth hour dearer than the first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import NamedTuple

import msgspec


class Totals(NamedTuple):
    """Sums over periods: of the value field in units and its n, of scores, and how many were rehearsals."""

    sum_units: int = 0
    n: int = 0
    scored: int = 0
    rehearsals: int = 0


class Trail(msgspec.Struct):
    """One model's periods in the order of their start (ms), as long as a window may reach back."""

    starts: list[int] = []
    totals: list[Totals] = []
    before: Totals = Totals()
    """Of the periods that are forgotten: what the running totals begin with."""

    def __bool__(self) -> bool:
        return bool(self.starts)

    def add(self, start: int, sum_units: int, n: int, scored: int, *, rehearsal: bool) -> None:
        """The next period; later than all before it."""
        last = self.totals[-1] if self.totals else self.before
        self.starts.append(start)
        self.totals.append(
            Totals(last[0] + sum_units, last[1] + n, last[2] + scored, last[3] + bool(rehearsal))
        )

    def since(self, from_ms: int) -> Totals:
        """The sums over the periods that start at or after `from_ms`."""
        if not self.totals:
            return Totals()
        first, last = bisect_left(self.starts, from_ms), self.totals[-1]
        before = self.totals[first - 1] if first else self.before
        return Totals(last[0] - before[0], last[1] - before[1], last[2] - before[2], last[3] - before[3])

    def start_of_newest(self, n: int) -> int:
        """Where (ms) the fewest newest periods begin whose n sum up to this many (1 or more); if none do, all begin."""
        if not self.totals:
            return 0
        enough = self.totals[-1].n - n
        first = bisect_right(self.totals, enough, key=itemgetter(1))
        return self.starts[first]

    def drop_before(self, from_ms: int) -> None:
        """Forget the periods that start before `from_ms`."""
        first = bisect_left(self.starts, from_ms)
        if first:
            self.before = self.totals[first - 1]
            del self.starts[:first], self.totals[:first]

    def copy(self) -> Trail:
        """The same periods, to go on from without changing this one."""
        return Trail(self.starts.copy(), self.totals.copy(), self.before)


def drop_scope_trails(trails: dict[str, dict[str, Trail]], from_ms: int) -> None:
    """Of every model, as `drop_trails`."""
    for model_id in list(trails):
        drop_trails(trails[model_id], from_ms)
        if not trails[model_id]:
            del trails[model_id]


def drop_trails(trails: dict[str, Trail], from_ms: int) -> None:
    """Forget the periods that start before `from_ms`, and what has none left."""
    for name in list(trails):
        trails[name].drop_before(from_ms)
        if not trails[name]:
            del trails[name]
