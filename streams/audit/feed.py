"""Checks the feed of one period by itself: each record once, at its own time, and every missing record in a gap; and
each table of stakes, which holds on for longer than a period.

Reads a `Chain`; returns a line of text, or raises ChainBrokenError. Pure. The values of a record came from outside, and
cannot be computed again. But a removed record is found, because the feed records each gap before time passes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from coordinator.streams.audit.facts import Asked, Chain, SeenRecord, broken
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.log import ids


def check_records(chain: Chain, rounds: Sequence[Asked]) -> str:
    """Check the records of every subject of the rounds, from its first point to the end of its last horizon."""
    spans: dict[str, tuple[int, int]] = {}
    for input_data, _, horizon in rounds:
        for subject in chain.terms.at(input_data.point).members(input_data.subject):
            first, last = spans.get(subject, (input_data.point, input_data.point))
            spans[subject] = (min(first, input_data.point), max(last, input_data.point + horizon * 1000))
    count = 0
    for subject, (first, last) in sorted(spans.items()):
        seen = [record for record in chain.records[subject] if first <= record.at <= last]
        _check_ids(seen)
        _check_cadence(chain, subject, seen)
        count += len(seen)
    return f"{count} records, none twice, every missing one in a recorded gap"


def check_stakes(chain: Chain) -> str:
    """Check that each table of stakes is what its id says, and the same in `inputs` as in `feeds`; "" without any."""
    for topic, tables in chain.stakes.items():
        for stakes_id, content in tables:
            if stakes_id.rpartition("/")[2] != content:
                broken(
                    "feed", f"{topic}: the table of stakes {stakes_id} has another content than its id says"
                )
    posted, taken = chain.stakes["feeds"], chain.stakes["inputs"]
    if taken != posted[: len(taken)]:
        broken("feed", f"inputs has other tables of stakes than feeds: {len(taken)} of {len(posted)}")
    return f", {len(posted)} tables of stakes" if posted else ""


def _check_ids(seen: Sequence[SeenRecord]) -> None:
    ids_seen: set[str] = set()
    for record in seen:
        data = record.event.data
        record_id = ids.feed_record_id(
            data.source, data.subject, data.kind, data.granularity, data.ts_event, data.revision
        )
        if record.event.id != record_id:
            broken("feed", f"record {record.event.id} has another id than its content gives, {record_id}")
        if record_id in ids_seen:
            broken("feed", f"record {record_id} is there twice")
        ids_seen.add(record_id)
        length_ms = cadence_ms(data.kind, data.granularity)
        if length_ms is not None and record.at != data.ts_event + length_ms:
            broken(
                "feed",
                f"record {record.event.id} is known at {record.at}, though its candle ends at another time",
            )


def _check_cadence(chain: Chain, subject: str, seen: Sequence[SeenRecord]) -> None:
    """Each missing candle must be in a FeedGapFound, whether or not that gap was closed since."""
    if not seen:
        return
    feed = chain.terms.at(seen[0].at).feed
    step = cadence_ms(feed.kind, feed.granularity)
    ats = sorted({record.at for record in seen if _is_of(record, feed.source, feed.kind, feed.granularity)})
    if step is None:
        return
    recorded_gaps = [(data.from_ms, data.until_ms) for data in chain.gaps[subject]]
    for before, after in pairwise(ats):
        for at in range(before + step, after, step):
            if not any(from_ms < at <= until_ms for from_ms, until_ms in recorded_gaps):
                broken("feed", f"{subject} lacks the record of {at}, and no FeedGapFound says so")


def _is_of(record: SeenRecord, source: str, kind: str, granularity: str) -> bool:
    data = record.event.data
    return (data.source, data.kind, data.granularity) == (source, kind, granularity)
