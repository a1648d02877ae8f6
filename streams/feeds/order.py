"""The order in which a replay sends recorded facts.

Pure. Reads the records of any number of subjects, each in order of `at`, and yields them in groups of equal `at`,
oldest first. A group is one instant of replayed time: the closed-loop replay sends it as a whole and then one clock
tick. The order inside a group depends only on the records, not on the order of the subjects, so that two replays write
the same log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import groupby

from coordinator.streams.ports import FeedRecord


def merge_by_time(histories: Iterable[Iterable[FeedRecord]]) -> Iterator[tuple[int, list[FeedRecord]]]:
    """Groups (at_ms, records) with strictly increasing at_ms; holds one record per history and one group in memory.

    Raises ValueError if a history goes back in time, which a source must not do.
    """
    ordered = merge(*[_in_order(history) for history in histories], key=_at)
    for at_ms, group in groupby(ordered, key=_at):
        yield at_ms, sorted(group, key=_identity)


def with_turns(
    groups: Iterable[tuple[int, list[FeedRecord]]], turn_before: Callable[[int], int | None]
) -> Iterator[tuple[int, list[FeedRecord]]]:
    """The groups, and before each an empty one for every turn in between, which `turn_before(at_ms)` gives.

    A turn is the time at which a posted question opens or closes. Without turns a replay would pass both in one step
    between two records.
    """
    for at_ms, records in groups:
        while (turn_ms := turn_before(at_ms)) is not None:
            yield turn_ms, []
        yield at_ms, records


def _at(record: FeedRecord) -> int:
    return record.at


def _identity(record: FeedRecord) -> tuple[str, str, str, str, int, int]:
    return (
        record.source,
        record.subject,
        record.kind,
        record.granularity,
        record.ts_event,
        record.revision,
    )


def _in_order(history: Iterable[FeedRecord]) -> Iterator[FeedRecord]:
    last: FeedRecord | None = None
    for record in history:
        if last is not None and record.at < last.at:
            raise ValueError(f"{record.source} {record.subject} goes back in time, {last.at} to {record.at}")
        last = record
        yield record
