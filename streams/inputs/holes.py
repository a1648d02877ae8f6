"""The holes in the feed of one subject: which records are missing in a window, and whether they may still come.

Pure. Folds FeedGapFound and FeedGapClosed of `feeds`. If the records of a feed have a cadence, the missing ones are
counted from the records that are there; otherwise only the gap events name them. A hole is *lasting* once
FeedGapClosed said that the source's history does not have the records either. Nobody waits for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub

import msgspec

from coordinator.streams.events import FeedGapClosedData, FeedGapData, GapSpan
from coordinator.streams.log.envelope import Need


class Span(msgspec.Struct, frozen=True):
    """A hole: no record with `at` in (from_ms, until_ms]. `before` is the position in `feeds` before its event."""

    from_ms: int
    until_ms: int
    before: Need

    def meets(self, from_ms: int, until_ms: int) -> bool:
        """Whether it overlaps (from_ms, until_ms]."""
        return self.from_ms < until_ms and from_ms < self.until_ms


class MissingRecords(msgspec.Struct, frozen=True):
    """The missing records of a window, as text, and whether none of them will come any more."""

    text: str
    lasting: bool


class Holes(msgspec.Struct):
    """The holes of one subject, in the order of their events. Records for an open hole may still come."""

    open: list[Span] = []
    lasting: list[Span] = []

    def found(self, data: FeedGapData, before: Need) -> None:
        """Fold FeedGapFound."""
        self.open.append(Span(data.from_ms, data.until_ms, before))

    def closed(self, data: FeedGapClosedData, before: Need) -> None:
        """Fold FeedGapClosed: no more records come in (from_ms, until_ms]."""
        self.open = [
            span for span in self.open if span.from_ms < data.from_ms or span.until_ms > data.until_ms
        ]
        if not data.complete:
            self.lasting.append(Span(data.from_ms, data.until_ms, before))

    def copy(self) -> Holes:
        """A copy that can be changed."""
        return Holes(list(self.open), list(self.lasting))

    def trim(self, before_ms: int) -> None:
        """Drop the holes that ended at or before the oldest record that is kept."""
        if self.open:
            self.open = [span for span in self.open if span.until_ms > before_ms]
        if self.lasting:
            self.lasting = [span for span in self.lasting if span.until_ms > before_ms]

    def spans(self) -> list[Span]:
        """All holes. The stage's `need` is not after the oldest."""
        return [*self.open, *self.lasting]

    def in_window(
        self, ats: Sequence[int], from_ms: int, until_ms: int, cadence_ms: int | None
    ) -> MissingRecords | None:
        """The records that are missing in a window; None if none is.

        `ats` are the times of its records, the first at or before the point `from_ms` of the input. The window ends
        with `until_ms`. `cadence_ms` is None for a feed without a cadence.
        """
        if cadence_ms is None:
            any_open = any(span.meets(ats[0], until_ms) for span in self.open)
            if any_open or any(span.meets(ats[0], until_ms) for span in self.lasting):
                return MissingRecords("a stretch of the feed is", not any_open)
            return None
        # The first record may be older than one cadence before the point. What is missing between it and the newest
        # record that was due at the point is not part of the window.
        runs = [
            run_inside
            for run in runs_missing(ats, until_ms, cadence_ms)
            if (run_inside := run.after(from_ms - cadence_ms))
        ]
        if not runs:
            return None
        count = sum(run.count for run in runs)
        lasting = all(self._covers(run) for run in runs)
        return MissingRecords(f"{count} of {count + len(ats) - 1} records are", lasting)

    def _covers(self, run: Run) -> bool:
        """Whether lasting holes cover every record of a run."""
        at = run.first
        while at <= run.last:
            span = next((lasting for lasting in self.lasting if lasting.meets(at - 1, at)), None)
            if span is None:
                return False
            # Go on with the first record of the run after this hole: a hole of years is passed in one step.
            at = run.first + -(-(span.until_ms + 1 - run.first) // run.cadence_ms) * run.cadence_ms
        return True

    def seen(self, ats: Sequence[int], until_ms: int, cadence_ms: int | None) -> list[GapSpan]:
        """The holes between the records at `ats`, and after them up to `until_ms`."""
        if cadence_ms is None:
            spans = {(span.from_ms, span.until_ms) for span in self.spans() if span.meets(ats[0], until_ms)}
            return [GapSpan(from_ms=from_ms, until_ms=end_ms) for from_ms, end_ms in sorted(spans)]
        return [
            GapSpan(from_ms=run.first - cadence_ms, until_ms=run.last)
            for run in runs_missing(ats, until_ms, cadence_ms)
        ]


class Run(msgspec.Struct, frozen=True):
    """`count` missing records in a row; the first is due at `first`, in ms. A hole of years is one run."""

    first: int
    count: int
    cadence_ms: int

    @property
    def last(self) -> int:
        """When its last record is due, in ms."""
        return self.first + (self.count - 1) * self.cadence_ms

    def after(self, from_ms: int) -> Run | None:
        """The part of the run that is due after `from_ms`; None if nothing is."""
        left_out = max(0, (from_ms - self.first) // self.cadence_ms + 1)
        if left_out >= self.count:
            return None
        return Run(self.first + left_out * self.cadence_ms, self.count - left_out, self.cadence_ms)


def runs_missing(ats: Sequence[int], until_ms: int, cadence_ms: int) -> list[Run]:
    """The missing records between those at `ats` (in order), and after them up to `until_ms`."""
    steps = map(sub, ats[1:], ats)
    if max(steps, default=0) <= cadence_ms and until_ms + 1 - ats[-1] <= cadence_ms:
        return []  # the usual case, found by compiled code: this runs for every window
    runs: list[Run] = []
    for at, after in zip(ats, [*ats[1:], until_ms + 1], strict=True):
        count = -(-(after - at) // cadence_ms) - 1
        if count > 0:
            runs.append(Run(at + cadence_ms, count, cadence_ms))
    return runs
