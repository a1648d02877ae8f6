"""The market as far as the input stage still needs it: records in order of `at`, and holes, by feed and subject.

Reads events of `feeds`. Two feeds are never mixed: an input sees, and a truth is made of, the records of one alone.
Folding (`take`, `trim`) changes it; `after` gives the market as it would be and leaves this one as it is.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from coordinator.streams.events import (
    Feed,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordReceived,
)
from coordinator.streams.inputs.ground_truth import Record, at_of
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.inputs.model_input import RECORDS_SEEN
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

Key = tuple[Feed, str]
"""A feed, and a subject of it."""
NO_HOLES = Holes()


class Arrival(msgspec.Struct, frozen=True):
    """One record or hole, with its place in the log."""

    key: Key
    told: Record | FeedGapData | FeedGapClosedData
    offset: int
    before: Need


def arrivals(decision: Decision) -> list[Arrival]:
    """The records and holes of a decision of `feeds`, in order."""
    found: list[Arrival] = []
    for event in decision.events:
        if not isinstance(event, (FeedRecordReceived, FeedGapFound, FeedGapClosed)):
            continue
        data = event.data
        key = (Feed(source=data.source, kind=data.kind, granularity=data.granularity), data.subject)
        place = (decision.first_offset, decision.before)
        told = Record(event.at, event.data, *place) if isinstance(event, FeedRecordReceived) else event.data
        found.append(Arrival(key, told, *place))
    return found


class Market:
    """Records and holes by feed and subject."""

    def __init__(self) -> None:
        self._records: dict[Key, list[Record]] = {}
        self._holes: dict[Key, Holes] = {}

    def records(self, feed: Feed, subject: str) -> list[Record]:
        """In order of `at`; not to be changed."""
        return self._records.get((feed, subject), [])

    def holes(self, feed: Feed, subject: str) -> Holes:
        """Not to be changed."""
        return self._holes.get((feed, subject), NO_HOLES)

    def newest_at(self) -> int:
        """The latest `at` of all records, -1 when there are none."""
        return max((records[-1].at for records in self._records.values() if records), default=-1)

    def after(self, told: Iterable[Arrival]) -> Market:
        """The market once this is taken in. What is not touched is shared."""
        told = list(told)
        then = Market()
        then._records, then._holes = dict(self._records), dict(self._holes)
        for key in {one.key for one in told}:
            if key in then._records:
                then._records[key] = list(then._records[key])
            if key in then._holes:
                then._holes[key] = then._holes[key].copy()
        then.take(told)
        return then

    def take(self, told: Iterable[Arrival]) -> None:
        """Fold records and holes."""
        for one in told:
            match one.told:
                case Record() as record:
                    _insert(self._records.setdefault(one.key, []), record)
                case FeedGapClosedData() as data:
                    self._holes.setdefault(one.key, Holes()).closed(data, one.offset, one.before)
                case FeedGapData() as data:
                    self._holes.setdefault(one.key, Holes()).found(data, one.offset, one.before)

    def trim(self, entries: Mapping[Key, int], feeds: Iterable[Feed], clock: int) -> None:
        """Keep the last RECORDS_SEEN records before the next point and all that an open truth needs, of these feeds.

        `entries` has the oldest point, in ms, of the open truths of a key.
        """
        for key, start in self._kept(entries, frozenset(feeds)):
            if start is None:
                self._records.pop(key, None)
                self._holes.pop(key, None)
                continue
            records = self._records.get(key, [])
            del records[:start]
            if key in self._holes:
                self._holes[key].trim(records[0].at if records else clock)

    def needed(self, entries: Mapping[Key, int], feeds: Iterable[Feed], clock: int) -> Need | None:
        """Where the oldest stands of what `trim` would keep; None when it keeps nothing."""
        oldest: list[Need] = []
        for key, start in self._kept(entries, frozenset(feeds)):
            if start is None:
                continue
            records = self._records.get(key, [])
            if start < len(records):
                oldest.append(min(records[start:], key=lambda one: one.offset).before)
            before_ms = records[start].at if records else clock
            oldest += [one.before for one in self.holes(*key).spans() if one.until_ms > before_ms]
        return min(oldest, key=lambda one: one.offset, default=None)

    def _kept(self, entries: Mapping[Key, int], feeds: frozenset[Feed]) -> Iterator[tuple[Key, int | None]]:
        """(key, index of the first record that is kept), None for the index where nothing is."""
        for key in list(self._records.keys() | self._holes.keys()):
            if key[0] not in feeds:
                yield key, None
                continue
            records = self._records.get(key, [])
            start = max(0, len(records) - RECORDS_SEEN - 1)
            if key in entries:
                start = min(start, max(0, bisect_right(records, entries[key], key=at_of) - 1))
            yield key, start


def _insert(records: list[Record], record: Record) -> None:
    """In order of `at`; a higher revision takes the place of the record it corrects."""
    for i in range(bisect_right(records, record.at, key=at_of) - 1, -1, -1):
        if records[i].at < record.at:
            break
        if records[i].data.ts_event == record.data.ts_event:
            if records[i].data.revision < record.data.revision:
                records[i] = record
            return
    insort(records, record, key=at_of)
