"""Which records of a feed a decision knew, and which of them a truth rests on.

A record may be corrected (a later revision of the same event time) or come late (backfilled). So what is known depends
on the offset of `feeds` up to which the decision had read. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from coordinator.streams.audit.facts import Chain, SeenRecord
from coordinator.streams.events import Terms


def truth_window(seen: Sequence[SeenRecord], point: int, end: int) -> list[SeenRecord]:
    """The last record with at <= point, and all later ones up to `end`."""
    first = bisect_right(seen, point, key=lambda record: record.at) - 1
    last = bisect_right(seen, end, key=lambda record: record.at)
    return list(seen[max(first, 0) : last])


class KnownRecords:
    """One subject's records of the contract's feed, to be asked for many windows.

    Almost all event times have one record. Those stand in order of `at`, so that a window is found without a look at
    all of them: with a look at each record for each truth, the time would grow with the square of their number. The
    few event times that were revised are looked at each time.
    """

    def __init__(self, chain: Chain, subject: str, terms: Terms) -> None:
        feed = terms.feed
        revisions: dict[int, list[SeenRecord]] = {}
        for seen in chain.records[subject]:
            data = seen.event.data
            if (data.source, data.kind, data.granularity) == (feed.source, feed.kind, feed.granularity):
                revisions.setdefault(data.ts_event, []).append(seen)
        self._single = sorted(
            (seen for (seen, *others) in revisions.values() if not others), key=lambda seen: seen.at
        )
        self._revised = [several for several in revisions.values() if len(several) > 1]

    def at_offset(self, offset: int) -> list[SeenRecord]:
        """All that are known at an offset of `feeds`, in order of `at`: of each event time the latest revision."""
        return self._in_order(self._single, offset)

    def window(self, point: int, end: int, offset: int) -> list[SeenRecord]:
        """What `truth_window` gives of all that are known at an offset of `feeds`."""
        first = bisect_right(self._single, point, key=lambda seen: seen.at)
        last = bisect_right(self._single, end, key=lambda seen: seen.at)
        # The last one before the window may have come after the decision: the one before it counts then.
        while first > 0 and self._single[first - 1].offset > offset:
            first -= 1
        return truth_window(self._in_order(self._single[max(first - 1, 0) : last], offset), point, end)

    def _in_order(self, single: Iterable[SeenRecord], offset: int) -> list[SeenRecord]:
        # (the record that counts, the first one of its event time, which decides between two with the same `at`)
        latest = [(seen, seen) for seen in single if seen.offset <= offset]
        for several in self._revised:
            by_then = [seen for seen in several if seen.offset <= offset]
            if by_then:  # of two with the same revision the first counts
                latest.append((max(by_then, key=lambda seen: seen.event.data.revision), by_then[0]))
        latest.sort(key=lambda pair: (pair[0].at, pair[1].at, pair[1].offset))
        return [seen for seen, _ in latest]


class FeedRecords:
    """The records of every subject and feed, each ordered when it is first asked for."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._known: dict[tuple[str, str, str, str], KnownRecords] = {}

    def of(self, subject: str, terms: Terms) -> KnownRecords:
        """Those of the feed that the terms name."""
        key = (subject, terms.feed.source, terms.feed.kind, terms.feed.granularity)
        if key not in self._known:
            self._known[key] = KnownRecords(self._chain, subject, terms)
        return self._known[key]
