"""The feed as it should have come: each record once, at its own time, with the values that are known now.

A record that was corrected stands in its first place with the values of its last revision. One that came late, or that
the operator gives, stands where it was due. A hole that was filled completely is none. What a hole of a feed without a
cadence lacks nobody can tell, so such a hole stays unless it was closed as complete.

Pure. Reads `feeds`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from coordinator.streams.engine.log import LogReader, MemoryLog
from coordinator.streams.events import (
    AnyEvent,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
)
from coordinator.streams.log import ids
from coordinator.streams.ports import FeedRecord

Name = tuple[str, str, str, str]
"""(source, subject, kind, granularity)"""
Key = tuple[Name, int]
"""A record's name and its own time, in ms."""


class AmendedFeed:
    """Give it each decision's events in order (`amended`); it is used for one run."""

    def __init__(self, log: MemoryLog, given: Iterable[FeedRecord] = ()) -> None:
        self._last: dict[Key, FeedRecordReceived] = {}
        """What each record that was corrected, came late or is given says in the end."""
        self._filled: dict[Name, list[tuple[int, int]]] = {}
        corrections = {_key(event.data): event for event in map(_event, given)}
        late, met = set[Key](), set[Key]()
        reader = LogReader(log, "feeds")
        while (decision := reader.next()) is not None:
            for event in decision.events:
                match event:
                    case FeedRecordReceived(data=data):
                        key = _key(data)
                        if data.revision or data.backfilled:
                            before = self._last.get(key)
                            if before is None and not data.revision:
                                late.add(key)
                            if before is None or before.data.revision < data.revision:
                                self._last[key] = event
                        if key in corrections:
                            met.add(key)
                    case FeedGapClosed(data=closed) if closed.complete:
                        self._filled.setdefault(_name(closed), []).append((closed.from_ms, closed.until_ms))
                    case _:
                        pass
        self._last |= corrections
        late |= corrections.keys() - met
        due = sorted((self._last[key] for key in late), key=lambda event: (event.at, event.id))
        self._due = deque(due)
        self._placed = late
        """Whose records of the log are left out: those put where they were due, and those placed already."""

    def amended(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """What stands in for the events of the feed's next decision."""
        at = max(event.at for event in events)
        due: list[AnyEvent] = []
        while self._due and self._due[0].at <= at:
            due.append(_as_due(self._due.popleft()))
        kept: list[AnyEvent] = []
        for event in events:
            if isinstance(event, FeedRecordReceived):
                kept += self._stand_in(event)
            elif not isinstance(event, FeedGapFound) or not self._is_filled(event.data):
                kept.append(event)
        return [*due, *kept]

    def _stand_in(self, event: FeedRecordReceived) -> list[AnyEvent]:
        key = _key(event.data)
        last = self._last.get(key)
        if last is None:
            return [event]
        if key in self._placed:
            return []
        self._placed.add(key)
        return [_as_due(msgspec.structs.replace(last, at=event.at))]

    def _is_filled(self, data: FeedGapData) -> bool:
        spans = self._filled.get(_name(data), ())
        return any(from_ms <= data.from_ms and data.until_ms <= until_ms for from_ms, until_ms in spans)


def _as_due(event: FeedRecordReceived) -> FeedRecordReceived:
    """As it would have come, had it been right and in time."""
    return msgspec.structs.replace(
        event, data=msgspec.structs.replace(event.data, revision=0, backfilled=False)
    )


def _name(data: FeedRecordData | FeedGapData | FeedGapClosedData) -> Name:
    return data.source, data.subject, data.kind, data.granularity


def _key(data: FeedRecordData) -> Key:
    return _name(data), data.ts_event


def _event(record: FeedRecord) -> FeedRecordReceived:
    data = FeedRecordData(
        source=record.source,
        subject=record.subject,
        kind=record.kind,
        granularity=record.granularity,
        ts_event=record.ts_event,
        values=dict(record.values),
    )
    return FeedRecordReceived(
        id=ids.feed_record_id(*_name(data), record.ts_event, 0), at=record.at, data=data
    )
