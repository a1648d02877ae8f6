"""The market as far as the input stage still needs it: records in order of `at`, and holes, by feed and subject.

A value. Reads events of `feeds`. Two feeds are never mixed: an input sees, and a truth is made of, the records of one
alone. Folding (`take`, `trim`) changes it; `after` gives the market as it would be and leaves this one as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from coordinator.streams.events import (
    Feed,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordReceived,
)
from coordinator.streams.inputs.ground_truth import Record, count_until
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

NO_HOLES = Holes()


class Kept(msgspec.Struct):
    """What the next input of a feed needs."""

    records: int = 0
    """Of so many records of a subject it is made, a model's first one too."""
    together: dict[str, int] = {}
    """Each subject that is asked together with others -> their deadline (ms)."""


class Arrival(msgspec.Struct, frozen=True):
    """One record or hole of a subject of a feed, with the place of its append in the log."""

    feed: Feed
    subject: str
    told: Record | FeedGapData | FeedGapClosedData
    before: Need


def arrivals(decision: Decision) -> list[Arrival]:
    """The records and holes of a decision of `feeds`, in order."""
    found: list[Arrival] = []
    for event in decision.events:
        if not isinstance(event, (FeedRecordReceived, FeedGapFound, FeedGapClosed)):
            continue
        data, before = event.data, decision.before
        feed = Feed(source=data.source, kind=data.kind, granularity=data.granularity)
        told = Record(event.at, event.data, before) if isinstance(event, FeedRecordReceived) else event.data
        found.append(Arrival(feed, data.subject, told, before))
    return found


def feed_key(feed: Feed) -> str:
    """The feed as text, to key by."""
    return f"{feed.source}\x1f{feed.kind}\x1f{feed.granularity}"


class Strip(msgspec.Struct):
    """The records and holes of one subject of one feed."""

    feed: Feed
    subject: str
    records: list[Record] = []
    holes: Holes = msgspec.field(default_factory=Holes)

    def copy(self) -> Strip:
        """Its own records and holes, to be changed without this one."""
        return Strip(self.feed, self.subject, list(self.records), self.holes.copy())

    def needed(self, start: int, clock: int) -> list[Need]:
        """Where those stand that `trim` keeps with `start` as the first: the oldest of the records, and each hole."""
        found: list[Need] = []
        for record in self.records[start:]:
            found.append(record.before)
            if not record.data.backfilled and not record.data.revision:
                break  # it came in order, so whatever lies behind it came later
        before_ms = self.records[start].at if self.records else clock
        return found + [one.before for one in self.holes.spans() if one.until_ms > before_ms]


class Market(msgspec.Struct):
    """All strips, by feed and subject."""

    strips: dict[str, Strip] = {}

    def strip(self, feed: Feed, subject: str) -> Strip | None:
        """Not to be changed."""
        return self.strips.get(_key(feed, subject))

    def records(self, feed: Feed, subject: str) -> list[Record]:
        """In order of `at`; not to be changed."""
        strip = self.strip(feed, subject)
        return [] if strip is None else strip.records

    def holes(self, feed: Feed, subject: str) -> Holes:
        """Not to be changed."""
        strip = self.strip(feed, subject)
        return NO_HOLES if strip is None else strip.holes

    def newest_at(self) -> int:
        """The latest `at` of all records, -1 when there are none."""
        return max((one.records[-1].at for one in self.strips.values() if one.records), default=-1)

    def count(self) -> int:
        """How many records are kept."""
        return sum(len(one.records) for one in self.strips.values())

    def after(self, told: Collection[Arrival]) -> Market:
        """The market once this is taken in. What is not touched is shared."""
        then = Market(dict(self.strips))
        for key in {_key(one.feed, one.subject) for one in told} & self.strips.keys():
            then.strips[key] = self.strips[key].copy()
        then.take(told)
        return then

    def take(self, told: Iterable[Arrival]) -> None:
        """Fold records and holes."""
        for one in told:
            key = _key(one.feed, one.subject)
            strip = self.strips.get(key)
            if strip is None:
                strip = self.strips[key] = Strip(one.feed, one.subject)
            match one.told:
                case Record() as record:
                    _insert(strip.records, record)
                case FeedGapClosedData() as data:
                    strip.holes.closed(data, one.before)
                case FeedGapData() as data:
                    strip.holes.found(data, one.before)

    def trim(self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, Kept], clock: int) -> None:
        """Keep what the next input is made of and all that an open truth needs, of these feeds.

        `entries` has the oldest point, in ms, of the open truths of a feed's subject; `feeds` has, by the key of a
        feed, what an input needs; `clock` is the last tick, in ms.
        """
        self.strips = {key: one for key, one in self.strips.items() if feed_key(one.feed) in feeds}
        for strip, start in self._kept(entries, feeds, clock):
            if start:
                del strip.records[:start]
            strip.holes.trim(strip.records[0].at if strip.records else clock)

    def needed(
        self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, Kept], clock: int
    ) -> Need | None:
        """Where the oldest stands of what `trim` would keep; None when it keeps nothing."""
        needs = [
            need for strip, start in self._kept(entries, feeds, clock) for need in strip.needed(start, clock)
        ]
        return min(needs, key=lambda one: one.offset, default=None)

    def _kept(
        self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, Kept], clock: int
    ) -> Iterator[tuple[Strip, int]]:
        """(strip, index of the first record that is kept) of each strip that is."""
        now = max(clock, self.newest_at())
        for strip in self.strips.values():
            kept = feeds.get(feed_key(strip.feed))
            if kept is None:
                continue
            start = max(0, len(strip.records) - kept.records - 1)
            if (deadline_ms := kept.together.get(strip.subject)) is not None:
                # It may be ahead of another: their next point is no older than the deadline allows.
                next_point = count_until(strip.records, now - deadline_ms - 1)
                start = min(start, max(0, next_point - kept.records - 1))
            entry = entries.get((strip.feed, strip.subject))
            if entry is not None:
                start = min(start, max(0, count_until(strip.records, entry) - 1))
            yield strip, start


def _key(feed: Feed, subject: str) -> str:
    return f"{feed_key(feed)}\x1f{subject}"


def _insert(records: list[Record], record: Record) -> None:
    """In order of `at`; a higher revision takes the place of the record it corrects."""
    for i in range(count_until(records, record.at) - 1, -1, -1):
        if records[i].at < record.at:
            break
        if records[i].data.ts_event == record.data.ts_event:
            if records[i].data.revision < record.data.revision:
                records[i] = record
            return
    records.insert(count_until(records, record.at), record)
