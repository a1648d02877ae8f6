"""Gaps in a feed: up to when a subscription is complete, which records are missing, and how far time may advance.

Pure. Folds the feed's own events (records, gaps found, gaps closed); computes which gaps and which tick are due. If
records have a cadence (candles), every missing record is a gap. If they arrive as they happen (ticks), silence is a gap
only while the source is not connected: a quiet market is not a fault.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

import msgspec

LATE = "no record came in time"


class Gap(msgspec.Struct):
    """A gap that was recorded, (from_ms, until_ms]. `missing`: how many records are still missing; None: not known."""

    from_ms: int
    until_ms: int
    missing: int | None

    def lacks(self, at: int, cadence_ms: int) -> bool:
        """Whether the gap has a record missing at this time (ms)."""
        return self.from_ms < at <= self.until_ms and (at - self.from_ms) % cadence_ms == 0


class Wholeness(msgspec.Struct):
    """How complete one subscription is. All times are `at`s in ms."""

    cadence_ms: int | None
    until: int = -1
    """Every record up to this time is there, or is in a recorded gap."""
    last_at: int = -1
    gaps: list[Gap] = []
    """The gaps that are recorded and not closed, in order."""
    ahead: list[int] = []
    """Times of records after the next gap, which is not recorded yet; in order."""

    def add(self, at: int) -> None:
        """Take a new record of this time."""
        self.last_at = max(self.last_at, at)
        for gap in self.gaps:
            if gap.missing and self.cadence_ms is not None and gap.lacks(at, self.cadence_ms):
                gap.missing -= 1
        if self.cadence_ms is None or self.until < 0:
            self.until = max(self.until, at)
        elif at > self.until and at not in self.ahead:
            insort(self.ahead, at)
        self._advance()

    def add_gap(self, from_ms: int, until_ms: int) -> None:
        """Take a recorded gap. If it begins where the last gap ends, that gap gets longer."""
        missing = None
        if self.cadence_ms is not None:
            gap = Gap(from_ms, until_ms, None)
            arrived = sum(gap.lacks(at, self.cadence_ms) for at in self.ahead)
            missing = (until_ms - from_ms) // self.cadence_ms - arrived
        if self.gaps and self.gaps[-1].until_ms == from_ms:
            last = self.gaps[-1]
            last.until_ms = until_ms
            last.missing = None if missing is None or last.missing is None else last.missing + missing
        else:
            self.gaps.append(Gap(from_ms, until_ms, missing))
        self.until = max(self.until, until_ms)
        self._advance()

    def close(self, from_ms: int, until_ms: int) -> None:
        """Close the gaps in (from_ms, until_ms]: no more records are expected there."""
        self.gaps = [gap for gap in self.gaps if not (from_ms <= gap.from_ms and gap.until_ms <= until_ms)]

    def _advance(self) -> None:
        while self.ahead and (self.cadence_ms is None or self.ahead[0] <= self.until + self.cadence_ms):
            self.until = max(self.until, self.ahead.pop(0))

    def due(
        self, now_ms: int, patience_ms: int, arrived: Iterable[int], *, connected: bool
    ) -> tuple[list[tuple[int, int]], int]:
        """(gaps to record, how far time may advance), as if the records of the times `arrived` were added before.

        A record is given up `patience_ms` after it was due; until then, time waits for it.
        """
        until, ahead = self.until, list(self.ahead)
        for at in arrived:
            if self.cadence_ms is None or until < 0:
                until = max(until, at)
            elif at > until:
                ahead.append(at)
        if until < 0:
            return [], now_ms
        limit = now_ms - patience_ms
        if self.cadence_ms is None:
            if limit <= until:
                return [], min(now_ms, until)
            return ([] if connected else [(until, limit)]), limit
        ahead.sort()
        step = self.cadence_ms
        gaps: list[tuple[int, int]] = []
        while True:
            while ahead and ahead[0] <= until + step:
                until = max(until, ahead.pop(0))
            if now_ms < until + step:
                return gaps, now_ms
            steps = (min(limit, ahead[0] - 1) if ahead else limit) - until
            if steps < step:
                return gaps, until + step - 1
            gaps.append((until, until + steps // step * step))
            until = gaps[-1][1]

    def filled(self) -> list[tuple[int, int]]:
        """The gaps whose records have all arrived."""
        return [
            (gap.from_ms, gap.until_ms) for gap in self.gaps if gap.missing is not None and not gap.missing
        ]
