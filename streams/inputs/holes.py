"""What a subject's feed lacks, as the input stage sees it: counted from the records where they keep a cadence, told by
gap events where they do not.

Pure. Folds FeedGapFound and FeedGapClosed of `feeds`. A hole is *lasting* once a closing said that history does
not have it either: then nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub

import msgspec

from coordinator.streams.events import FeedGapClosedData, FeedGapData, GapSpan
from coordinator.streams.log.envelope import Need


class Span(msgspec.Struct, frozen=True):
    """(from_ms, until_ms] in `at`, with its event's place in the log."""

    from_ms: int
    until_ms: int
    before: Need

    def meets(self, from_ms: int, until_ms: int) -> bool:
        """Does it share an instant with (from_ms, until_ms]?"""
        return self.from_ms < until_ms and from_ms < self.until_ms


class Lack(msgspec.Struct, frozen=True):
    """What a window lacks, in words, and whether it will stay so."""

    text: str
    lasting: bool


class Holes(msgspec.Struct):
    """The holes of one subject, in the order in which they were told."""

    open: list[Span] = []
    lasting: list[Span] = []

    def found(self, data: FeedGapData, before: Need) -> None:
        """A hole was found; records may still come."""
        self.open.append(Span(data.from_ms, data.until_ms, before))

    def closed(self, data: FeedGapClosedData, before: Need) -> None:
        """Nothing more comes in (from_ms, until_ms]."""
        self.open = [one for one in self.open if one.from_ms < data.from_ms or one.until_ms > data.until_ms]
        if not data.complete:
            self.lasting.append(Span(data.from_ms, data.until_ms, before))

    def copy(self) -> Holes:
        """Its own holes, to be changed without this one."""
        return Holes(list(self.open), list(self.lasting))

    def trim(self, before_ms: int) -> None:
        """Forget what ended at or before the oldest record that is still kept."""
        self.open = [one for one in self.open if one.until_ms > before_ms]
        self.lasting = [one for one in self.lasting if one.until_ms > before_ms]

    def spans(self) -> list[Span]:
        """All that is kept: the stage's need reaches back to the oldest."""
        return [*self.open, *self.lasting]

    def in_window(
        self, ats: Sequence[int], from_ms: int, until_ms: int, cadence_ms: int | None
    ) -> Lack | None:
        """What the records at `ats` (the entry first) lack up to `until_ms`; `from_ms` is the input's time."""
        if cadence_ms is None:
            open_ones = any(one.meets(ats[0], until_ms) for one in self.open)
            if open_ones or any(one.meets(ats[0], until_ms) for one in self.lasting):
                return Lack("a stretch of the feed is", not open_ones)
            return None
        runs = [
            run
            for run in (one.after(from_ms - cadence_ms) for one in runs_missing(ats, until_ms, cadence_ms))
            if run
        ]
        if not runs:
            return None
        count = sum(run.count for run in runs)
        lasting = all(self._covers(run) for run in runs)
        return Lack(f"{count} of {count + len(ats) - 1} records are", lasting)

    def _covers(self, run: Run) -> bool:
        """Will none of a run's records ever come?"""
        at = run.first
        while at <= run.last:
            span = next((one for one in self.lasting if one.meets(at - 1, at)), None)
            if span is None:
                return False
            at = run.first + -(-(span.until_ms + 1 - run.first) // run.cadence_ms) * run.cadence_ms
        return True

    def seen(self, ats: Sequence[int], until_ms: int, cadence_ms: int | None) -> list[GapSpan]:
        """The holes between the records at `ats`, and after them up to `until_ms`."""
        if cadence_ms is None:
            found = sorted(
                {(one.from_ms, one.until_ms) for one in self.spans() if one.meets(ats[0], until_ms)}
            )
            return [GapSpan(from_ms=from_ms, until_ms=end_ms) for from_ms, end_ms in found]
        return [
            GapSpan(from_ms=run.first - cadence_ms, until_ms=run.last)
            for run in runs_missing(ats, until_ms, cadence_ms)
        ]


class Run(msgspec.Struct, frozen=True):
    """`count` records in a row that are missing, the first one due at `first`. A hole of years is one run."""

    first: int
    count: int
    cadence_ms: int

    @property
    def last(self) -> int:
        return self.first + (self.count - 1) * self.cadence_ms

    def after(self, from_ms: int) -> Run | None:
        """The part of it that is due after `from_ms`, or None."""
        left_out = max(0, (from_ms - self.first) // self.cadence_ms + 1)
        if left_out >= self.count:
            return None
        return Run(self.first + left_out * self.cadence_ms, self.count - left_out, self.cadence_ms)


def runs_missing(ats: Sequence[int], until_ms: int, cadence_ms: int) -> list[Run]:
    """What should be and is not: between the records at `ats` (in order), and after them up to `until_ms`."""
    steps = map(sub, ats[1:], ats)
    if max(steps, default=0) <= cadence_ms and until_ms + 1 - ats[-1] <= cadence_ms:
        return []  # nearly always; seen in compiled code
    runs: list[Run] = []
    for at, after in zip(ats, [*ats[1:], until_ms + 1], strict=True):
        count = -(-(after - at) // cadence_ms) - 1
        if count > 0:
            runs.append(Run(at + cadence_ms, count, cadence_ms))
    return runs
