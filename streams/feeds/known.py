"""Which records of a subscription are known, and whether one that is said again corrects what was said.

Pure; folds the feed's own records. What is kept is bounded by numbers, so it is a function of the log alone:

- Known times are kept as runs. A candle feed without holes is one run, however long; each tick is a run of its own.
  Beyond RUNS_KEPT the oldest runs are forgotten. `floor_ms` is then the newest forgotten time: of a record at or before
  it nobody can say whether it is a repeat, so it is refused (`Known.refusal`).
- Beyond REVISIONS_KEPT corrected records the oldest are forgotten in the same way: they are corrected no more.
- The values of the last CANDLES_COMPARED candles are kept, to tell a correction that has no number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.ports import FeedRecord, Subscription

CANDLES_COMPARED = 1_000
RUNS_KEPT = 50_000
"""Fourteen hours of a tick every second."""
REVISIONS_KEPT = 10_000
SLACK = 8
"""What is bounded may grow by this part of its bound before it is cut back: cutting moves the whole list."""
NOTHING_FORGOTTEN = -(1 << 62)


class Times(msgspec.Struct):
    """A set of times in ms, as runs: `firsts[i], firsts[i] + step_ms, ... lasts[i]`, in order."""

    step_ms: int
    firsts: list[int] = []
    lasts: list[int] = []
    floor_ms: int = NOTHING_FORGOTTEN
    """The newest time that was forgotten."""

    def __len__(self) -> int:
        runs = zip(self.firsts, self.lasts, strict=True)
        return sum((last - first) // self.step_ms + 1 for first, last in runs)

    def __contains__(self, time_ms: int) -> bool:
        i = bisect_right(self.firsts, time_ms) - 1
        return i >= 0 and time_ms <= self.lasts[i]

    def add(self, time_ms: int) -> None:
        """Take in a time that is not in the set, a multiple of `step_ms`; forget the oldest runs of too many."""
        i = bisect_right(self.firsts, time_ms)
        follows = i > 0 and self.lasts[i - 1] + self.step_ms == time_ms
        precedes = i < len(self.firsts) and time_ms + self.step_ms == self.firsts[i]
        if follows and precedes:  # it closes the hole between two runs
            self.lasts[i - 1] = self.lasts.pop(i)
            del self.firsts[i]
        elif follows:
            self.lasts[i - 1] = time_ms
        elif precedes:
            self.firsts[i] = time_ms
        else:
            self.firsts.insert(i, time_ms)
            self.lasts.insert(i, time_ms)
        too_many = len(self.firsts) - RUNS_KEPT
        if too_many > RUNS_KEPT // SLACK:
            self.floor_ms = max(self.floor_ms, self.lasts[too_many - 1])
            del self.firsts[:too_many], self.lasts[:too_many]


class Known(msgspec.Struct):
    """The records of one subscription that are known, and how whole it is. Made by `known_of`."""

    of: Subscription
    whole: Wholeness
    compared: bool
    """Are values kept, to tell corrections? Those of candles are."""
    on_grid: Times
    """Times that are multiples of the cadence; where records keep none, all of them."""
    off_grid: Times
    revisions: dict[int, int] = {}
    """ts_event -> the highest revision, where that is above 0."""
    revisions_floor_ms: int = NOTHING_FORGOTTEN
    said: dict[int, dict[int, dict[str, str]]] = {}
    """ts_event -> revision -> values."""

    def revision(self, ts_event: int) -> int:
        """The highest revision seen of a record, -1 if none was (or nobody knows: see `refusal`)."""
        return self.revisions.get(ts_event, 0) if ts_event in self._times(ts_event) else -1

    def _times(self, ts_event: int) -> Times:
        return self.off_grid if ts_event % self.on_grid.step_ms else self.on_grid

    @property
    def floor_ms(self) -> int:
        """At or before this time some records are forgotten."""
        return max(self.on_grid.floor_ms, self.off_grid.floor_ms)

    def refusal(self, ts_event: int, revision: int) -> str | None:
        """Why a record can no more be told from a repeat, or None."""
        floor_ms = self._times(ts_event).floor_ms
        if ts_event <= floor_ms:
            return f"too late: up to {floor_ms} ms it is no more known which records there are"
        if revision > 0 and ts_event <= self.revisions_floor_ms:
            return f"too late: up to {self.revisions_floor_ms} ms it is no more known which corrections there are"
        return None

    def versions(self, ts_event: int) -> Mapping[int, Mapping[str, str]]:
        """What is remembered of one record: revision -> values."""
        return self.said.get(ts_event, {})

    def add(self, ts_event: int, revision: int, at: int, values: dict[str, str]) -> None:
        """A record was recorded."""
        if self.compared:
            self.said.setdefault(ts_event, {})[revision] = values
            if len(self.said) > CANDLES_COMPARED + CANDLES_COMPARED // SLACK:
                self.said = {one: self.said[one] for one in sorted(self.said)[-CANDLES_COMPARED:]}
        times = self._times(ts_event)
        if ts_event not in times:
            self.whole.add(at)
            times.add(ts_event)
        if revision:
            self.revisions[ts_event] = revision
            if len(self.revisions) > REVISIONS_KEPT + REVISIONS_KEPT // SLACK:
                in_order = sorted(self.revisions)
                self.revisions_floor_ms = max(self.revisions_floor_ms, in_order[-REVISIONS_KEPT - 1])
                self.revisions = {one: self.revisions[one] for one in in_order[-REVISIONS_KEPT:]}


def known_of(subscription: Subscription) -> Known:
    """Nothing is known of it yet."""
    cadence = cadence_ms(subscription.kind, subscription.granularity)
    return Known(
        subscription, Wholeness(cadence), subscription.kind == "candle", Times(cadence or 1), Times(1)
    )


def corrects(record: FeedRecord, versions: Mapping[int, Mapping[str, str]]) -> bool:
    """Is a candle that is said again another one than all its versions? Exchanges number no revisions: a correction is
    told by its values. One that leaves a value out corrects nothing.
    """
    return record.revision in versions and all(
        one.keys() <= record.values.keys()
        and any(Decimal(text) != Decimal(record.values[name]) for name, text in one.items())
        for one in versions.values()
    )
