"""The part of the market that the input stage still needs: records in order of `at`, and holes, by feed and subject.

A value. Folds events of `feeds`. Feeds are never mixed: an input and its truth are made from the records of one feed.
`take` and `trim` fold, and change it; `after` returns the market as it would be and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice, pairwise

import msgspec

from coordinator.streams.durations import FAR_MS
from coordinator.streams.events import (
    Feed,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordReceived,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.inputs.ground_truth import Record, count_until
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

NO_HOLES = Holes()


class FeedRetention(msgspec.Struct):
    """What to keep of a feed for its next inputs."""

    records: int = 0
    """The largest number of records of a subject that an input, or a model's first tick, is made from."""
    together: dict[str, int] = {}
    """Subject that is asked together with others -> their deadline in ms."""


class Arrival(msgspec.Struct, frozen=True):
    """One record or gap event of a subject of a feed. `before` is the position in `feeds` before its append."""

    feed: Feed
    feed_key: str
    subject: str
    told: Record | FeedGapData | FeedGapClosedData
    before: Need

    @property
    def key(self) -> str:
        """The key of its strip."""
        return _key(self.feed_key, self.subject)


def arrivals(decision: Decision) -> list[Arrival]:
    """The records and gap events of a decision of `feeds`, in order."""
    arrived: list[Arrival] = []
    for event in decision.events:
        if not isinstance(event, (FeedRecordReceived, FeedGapFound, FeedGapClosed)):
            continue
        data, before = event.data, decision.before
        feed = _feed(data.source, data.kind, data.granularity)
        told = Record(event.at, event.data, before) if isinstance(event, FeedRecordReceived) else event.data
        arrived.append(Arrival(feed, feed.key, data.subject, told, before))
    return arrived


@lru_cache(maxsize=64)
def _feed(source: str, kind: str, granularity: str) -> Feed:
    """One object for each feed, which makes its key once."""
    return Feed(source=source, kind=kind, granularity=granularity)


class Strip(msgspec.Struct):
    """The records and holes of one subject of one feed."""

    feed: Feed
    feed_key: str
    subject: str
    records: list[Record] = []
    holes: Holes = msgspec.field(default_factory=Holes)
    whole_from: int = FAR_MS
    """The time (ms) of the first record after which each follows within the feed's cadence, up to the newest. So most
    windows are known to be whole by one comparison; a look at each of their records took 4 % of a backtest.
    """

    def copy(self) -> Strip:
        """A copy that can be changed."""
        return Strip(
            self.feed, self.feed_key, self.subject, list(self.records), self.holes.copy(), self.whole_from
        )

    def insert(self, record: Record) -> None:
        """Insert in order of `at`. A record with a higher revision replaces the one that it corrects."""
        records, cadence = self.records, cadence_ms(self.feed.kind, self.feed.granularity)
        if not records or records[-1].at < record.at:
            if not records or cadence is None or record.at - records[-1].at > cadence:
                self.whole_from = record.at
            records.append(record)
            return
        _insert(records, record)
        self.whole_from = records[-1].at
        for later, earlier in pairwise(reversed(records)):
            if cadence is None or later.at - earlier.at > cadence:
                break
            self.whole_from = earlier.at

    def drop(self, count: int) -> None:
        """Drop the oldest records."""
        del self.records[:count]
        self.whole_from = max(self.whole_from, self.records[0].at) if self.records else FAR_MS

    def needed(self, start: int, clock: int) -> list[Need]:
        """The positions in `feeds` of what `trim` keeps if `start` is the index of the first record that is kept."""
        positions: list[Need] = []
        for record in islice(self.records, start, None):
            positions.append(record.before)
            if not record.data.backfilled and not record.data.revision:
                break  # it came in order, so every record after it came later, and has a later position
        before_ms = self.records[start].at if self.records else clock
        return positions + [span.before for span in self.holes.spans() if span.until_ms > before_ms]


class Market(msgspec.Struct):
    """All strips, by feed and subject. What its methods return must not be changed."""

    strips: dict[str, Strip] = {}

    def strip(self, feed: Feed, subject: str) -> Strip | None:
        """The records and holes of a subject; None if nothing of it came."""
        return self.strips.get(_key(feed.key, subject))

    def records(self, feed: Feed, subject: str) -> list[Record]:
        """The records of a subject, in order of `at`."""
        strip = self.strip(feed, subject)
        return [] if strip is None else strip.records

    def holes(self, feed: Feed, subject: str) -> Holes:
        """The holes of a subject."""
        strip = self.strip(feed, subject)
        return NO_HOLES if strip is None else strip.holes

    def whole_from(self, feed: Feed, subject: str) -> int:
        """From when on (ms) a subject's records follow each other within the feed's cadence."""
        strip = self.strip(feed, subject)
        return FAR_MS if strip is None else strip.whole_from

    def newest_at(self) -> int:
        """The latest `at` of all records; -1 if there are none."""
        return max([strip.records[-1].at for strip in self.strips.values() if strip.records], default=-1)

    def count(self) -> int:
        """How many records it holds."""
        return sum([len(strip.records) for strip in self.strips.values()])

    def after(self, arrived: Collection[Arrival]) -> Market:
        """The market with these records and gaps. Strips without any of them are shared with this market."""
        then = Market(dict(self.strips))
        for key in {arrival.key for arrival in arrived} & self.strips.keys():
            then.strips[key] = self.strips[key].copy()
        then.take(arrived)
        return then

    def take(self, arrived: Iterable[Arrival]) -> None:
        """Fold records and gap events."""
        for arrival in arrived:
            key = arrival.key
            strip = self.strips.get(key)
            if strip is None:
                strip = self.strips[key] = Strip(arrival.feed, arrival.feed_key, arrival.subject)
            match arrival.told:
                case Record() as record:
                    strip.insert(record)
                case FeedGapClosedData() as data:
                    strip.holes.closed(data, arrival.before)
                case FeedGapData() as data:
                    strip.holes.found(data, arrival.before)

    def trim(
        self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, FeedRetention], clock: int
    ) -> None:
        """Drop everything that neither the next inputs nor an open truth of these feeds need.

        `entries`: (feed, subject) -> the oldest point, in ms, of its open truths. `feeds`: feed key -> what to keep
        for the next inputs. `clock`: the last tick, in ms.
        """
        for key in [key for key, strip in self.strips.items() if strip.feed_key not in feeds]:
            del self.strips[key]
        for strip, start in self._kept(entries, feeds, clock):
            if start:
                strip.drop(start)
            strip.holes.trim(strip.records[0].at if strip.records else clock)

    def needed(
        self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, FeedRetention], clock: int
    ) -> Need | None:
        """The oldest position in `feeds` of what `trim` would keep; None if it keeps nothing."""
        oldest: Need | None = None
        for strip, start in self._kept(entries, feeds, clock):
            for need in strip.needed(start, clock):
                if oldest is None or need.offset < oldest.offset:
                    oldest = need
        return oldest

    def _kept(
        self, entries: Mapping[tuple[Feed, str], int], feeds: Mapping[str, FeedRetention], clock: int
    ) -> Iterator[tuple[Strip, int]]:
        """(strip, index of the first record to keep) for each strip to keep."""
        for strip in self.strips.values():
            feed_kept = feeds.get(strip.feed_key)
            if feed_kept is None:
                continue
            start = max(0, len(strip.records) - feed_kept.records - 1)
            if (deadline_ms := feed_kept.together.get(strip.subject)) is not None:
                # Its records may be ahead of those of another subject, for which their common point waits. That point
                # is not older than the deadline, because the clock would have skipped it.
                now = max(clock, self.newest_at())
                next_point = count_until(strip.records, now - deadline_ms - 1)
                start = min(start, max(0, next_point - feed_kept.records - 1))
            entry = entries.get((strip.feed, strip.subject))
            if entry is not None:
                start = min(start, max(0, count_until(strip.records, entry) - 1))
            yield strip, start


def _key(feed: str, subject: str) -> str:
    return f"{feed}\x1f{subject}"


def _insert(records: list[Record], record: Record) -> None:
    for i in range(count_until(records, record.at) - 1, -1, -1):
        if records[i].at < record.at:
            break
        if records[i].data.ts_event == record.data.ts_event:
            if records[i].data.revision < record.data.revision:
                records[i] = record
            return
    records.insert(count_until(records, record.at), record)
