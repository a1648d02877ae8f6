"""The feed of one period by itself: each record once, at its own time, and none missing without a word.

Reads a `Chain`; gives a line, or raises ChainBrokenError. Pure. What a record says cannot be computed again (it came
from outside); that one was taken out can be seen, since the feed names each hole before time goes past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from coordinator.streams.audit.facts import Asked, Chain, Seen, broken
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.log import ids


def check_records(chain: Chain, rounds: Sequence[Asked]) -> str:
    """The records from the first point's to the last horizon's, of every subject that is asked about."""
    spans: dict[str, tuple[int, int]] = {}
    for one, _, horizon in rounds:
        first, last = spans.get(one.subject, (one.point, one.point))
        spans[one.subject] = (min(first, one.point), max(last, one.point + horizon * 1000))
    count = 0
    for subject, (first, last) in sorted(spans.items()):
        seen = [one for one in chain.records[subject] if first <= one.at <= last]
        _check_ids(seen)
        _check_cadence(chain, subject, seen)
        count += len(seen)
    return f"{count} records, none twice, none missing unsaid"


def _check_ids(seen: Sequence[Seen]) -> None:
    known: set[str] = set()
    for one in seen:
        data = one.event.data
        the_id = ids.feed_record_id(
            data.source, data.subject, data.kind, data.granularity, data.ts_event, data.revision
        )
        if one.event.id != the_id:
            broken("feed", f"record {one.event.id} is called another than {the_id}, which it is")
        if the_id in known:
            broken("feed", f"record {the_id} stands twice")
        known.add(the_id)
        length_ms = cadence_ms(data.kind, data.granularity)
        if length_ms is not None and one.at != data.ts_event + length_ms:
            broken(
                "feed", f"record {one.event.id} is known at {one.at}, though its candle ends at another time"
            )


def _check_cadence(chain: Chain, subject: str, seen: Sequence[Seen]) -> None:
    """Of a candle that is not there a FeedGapFound must speak, whether or not it was closed since."""
    if not seen:
        return
    feed = chain.terms.at(seen[0].at).feed
    step = cadence_ms(feed.kind, feed.granularity)
    ats = sorted({one.at for one in seen if _is_of(one, feed.source, feed.kind, feed.granularity)})
    if step is None:
        return
    said = [(data.from_ms, data.until_ms) for data in chain.gaps[subject]]
    for before, after in pairwise(ats):
        for at in range(before + step, after, step):
            if not any(from_ms < at <= until_ms for from_ms, until_ms in said):
                broken("feed", f"{subject} lacks the record of {at}, and no FeedGapFound says so")


def _is_of(one: Seen, source: str, kind: str, granularity: str) -> bool:
    data = one.event.data
    return (data.source, data.kind, data.granularity) == (source, kind, granularity)
