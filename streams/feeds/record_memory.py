"""Which records of a subscription are known, and whether a repeated record corrects the earlier one.

Pure; folds the feed's own records. The memory is bounded by counts, so that it is a function of the log alone:

- The known times are stored as runs. A candle feed without gaps is one run, however long; each tick is a run by itself.
  With more than RUNS_KEPT runs, the oldest are forgotten, and `floor_ms` is the newest forgotten time. A record at or
  before it may be a repeat or not, so it is refused (`Known.refusal`).
- With more than REVISIONS_KEPT corrected records, the oldest are forgotten in the same way, and cannot be corrected any
  more.
- The values of the last CANDLES_COMPARED candles are stored, to recognise a correction without a revision number.
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
"""Fourteen hours of one tick a second."""
REVISIONS_KEPT = 10_000
SLACK = 8
"""A list may exceed its bound by 1 / SLACK before it is cut back, because each cut moves the whole list."""
NOTHING_FORGOTTEN = -(1 << 62)


class Times(msgspec.Struct):
    """A set of times in ms, stored as runs in order: `firsts[i], firsts[i] + step_ms, ..., lasts[i]`."""

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
        """Add a time that is not in the set, a multiple of `step_ms`. If there are too many runs, forget the oldest."""
        i = bisect_right(self.firsts, time_ms)
        follows = i > 0 and self.lasts[i - 1] + self.step_ms == time_ms
        precedes = i < len(self.firsts) and time_ms + self.step_ms == self.firsts[i]
        if follows and precedes:  # it joins two runs
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


class RecordMemory(msgspec.Struct):
    """The known records of one subscription, and how complete it is. Made by `known_of`."""

    of: Subscription
    whole: Wholeness
    compared: bool
    """Whether values are stored to recognise corrections. It is so for candles."""
    on_grid: Times
    """Times that are multiples of the cadence; all times, if there is no cadence."""
    off_grid: Times
    revisions: dict[int, int] = {}
    """ts_event -> the highest revision, if it is above 0."""
    revisions_floor_ms: int = NOTHING_FORGOTTEN
    said: dict[int, dict[int, dict[str, str]]] = {}
    """ts_event -> revision -> values."""

    def revision(self, ts_event: int) -> int:
        """The highest revision of a record; -1 if it is unknown (or forgotten, see `refusal`)."""
        return self.revisions.get(ts_event, 0) if ts_event in self._times(ts_event) else -1

    def _times(self, ts_event: int) -> Times:
        return self.off_grid if ts_event % self.on_grid.step_ms else self.on_grid

    @property
    def floor_ms(self) -> int:
        """Some records at or before this time are forgotten."""
        return max(self.on_grid.floor_ms, self.off_grid.floor_ms)

    def refusal(self, ts_event: int, revision: int) -> str | None:
        """Why it is no longer known whether a record is a repeat, or None."""
        floor_ms = self._times(ts_event).floor_ms
        if ts_event <= floor_ms:
            return f"too late: up to {floor_ms} ms it is no longer known which records there are"
        if revision > 0 and ts_event <= self.revisions_floor_ms:
            return f"too late: up to {self.revisions_floor_ms} ms it is no longer known which corrections there are"
        return None

    def versions(self, ts_event: int) -> Mapping[int, Mapping[str, str]]:
        """The stored versions of one record: revision -> values."""
        return self.said.get(ts_event, {})

    def add(self, ts_event: int, revision: int, at: int, values: dict[str, str]) -> None:
        """Take a record that was recorded."""
        if self.compared:
            self.said.setdefault(ts_event, {})[revision] = values
            if len(self.said) > CANDLES_COMPARED + CANDLES_COMPARED // SLACK:
                self.said = {time: self.said[time] for time in sorted(self.said)[-CANDLES_COMPARED:]}
        times = self._times(ts_event)
        if ts_event not in times:
            self.whole.add(at)
            times.add(ts_event)
        if revision:
            self.revisions[ts_event] = revision
            if len(self.revisions) > REVISIONS_KEPT + REVISIONS_KEPT // SLACK:
                in_order = sorted(self.revisions)
                self.revisions_floor_ms = max(self.revisions_floor_ms, in_order[-REVISIONS_KEPT - 1])
                self.revisions = {time: self.revisions[time] for time in in_order[-REVISIONS_KEPT:]}


def known_of(subscription: Subscription) -> RecordMemory:
    """The memory of a subscription before its first record."""
    cadence = cadence_ms(subscription.kind, subscription.granularity)
    return RecordMemory(
        subscription, Wholeness(cadence), subscription.kind == "candle", Times(cadence or 1), Times(1)
    )


def corrects(record: FeedRecord, versions: Mapping[int, Mapping[str, str]]) -> bool:
    """Whether a repeated candle differs from all its versions.

    Exchanges do not number revisions, so a correction is recognised by its values. A candle without a value that an
    earlier version has corrects nothing.
    """
    return record.revision in versions and all(
        version.keys() <= record.values.keys()
        and any(Decimal(text) != Decimal(record.values[name]) for name, text in version.items())
        for version in versions.values()
    )
