"""The feed as it should have come: each record once, at its own time, with the values that are known now.

Reads `feeds` of a log in memory, and emits nothing: it returns the events that replace those of each decision. A
checkpoint that is computed again (`correct.py`) needs them, because a truth that was made of a wrong or missing record
was paid for. Pure.

- A corrected record is in its first place, with the values of its last revision.
- A record that came late, or that the operator gives, is where it was due.
- The last truth of a posted question, or that it is void, is in the place of its first truth.
- A gap that was filled completely is left out. What a gap of a feed without a cadence lacks is unknown, so such a
  gap stays unless the log says that it was closed as complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.events import (
    AnyEvent,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    QuestionResolved,
    QuestionVoided,
)
from coordinator.streams.log import ids
from coordinator.streams.ports import FeedRecord

Name = tuple[str, str, str, str]
"""(source, subject, kind, granularity)"""
Key = tuple[Name, int]
"""A record's name and its own time, in ms."""


class RecordUse(msgspec.Struct, frozen=True):
    """How many of the operator's records have other values than the log's, are of no time that the log has a record
    of, and are in the log with the same values.
    """

    changed: int = 0
    added: int = 0
    same: int = 0


class AmendedFeed:
    """Amends the feed of one run. Call `amended` with the events of each decision, in the log's order."""

    def __init__(self, log: MemoryLog, operator_records: Iterable[FeedRecord] = ()) -> None:
        """Reads all of `feeds`. The operator's records win over those of the log."""
        self._last: dict[Key, FeedRecordReceived] = {}
        """The last version of each record that was corrected, came late, or comes from the operator."""
        self._filled: dict[Name, list[tuple[int, int]]] = {}
        self._outcomes: dict[tuple[str, str], QuestionResolved | QuestionVoided] = {}
        """(round, question) -> its final truth, until it is returned."""
        corrections = {_key(event.data): event for event in map(_event, operator_records)}
        late, recorded = set[Key](), dict[Key, FeedRecordData]()
        reader = LogReader(log, "feeds")
        while (decision := reader.next()) is not None:
            for event in decision.events:
                match event:
                    case FeedRecordReceived(data=data):
                        key = _key(data)
                        if data.revision or data.backfilled:
                            before = self._last.get(key)
                            # Only a first version that was fetched later makes the record late. A revision alone
                            # does not: the record is already in its place. The highest revision counts.
                            if before is None and not data.revision:
                                late.add(key)
                            if before is None or before.data.revision < data.revision:
                                self._last[key] = event
                        if key in corrections and (
                            key not in recorded or recorded[key].revision < data.revision
                        ):
                            recorded[key] = data
                    case QuestionResolved(data=truth) | QuestionVoided(data=truth):
                        self._outcomes[truth.round_id, truth.question_id] = event
                    case FeedGapClosed(data=closed) if closed.complete:
                        self._filled.setdefault(_name(closed), []).append((closed.from_ms, closed.until_ms))
                    case _:
                        pass
        self._last |= corrections
        # A record of the operator that the log never had is due at its own time, as a late one is.
        late |= corrections.keys() - recorded.keys()
        same = sum(corrections[key].data.values == data.values for key, data in recorded.items())
        self.operator_use = RecordUse(
            changed=len(recorded) - same, added=len(corrections) - len(recorded), same=same
        )
        due = sorted((self._last[key] for key in late), key=lambda event: (event.at, event.id))
        self._due = deque(due)
        self._placed = late
        """Records that are already in their place, or will be put where they were due. Their other versions in the
        log are left out, so that each record is returned once.
        """

    def amended(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """The events that replace those of the feed's next decision. The list may be empty."""
        at = max(event.at for event in events)
        due: list[AnyEvent] = []
        while self._due and self._due[0].at <= at:
            due.append(_as_due(self._due.popleft()))
        in_place: list[AnyEvent] = []
        for event in events:
            if isinstance(event, FeedRecordReceived):
                in_place += self._stand_in(event)
            elif isinstance(event, (QuestionResolved, QuestionVoided)):
                outcome = self._outcomes.pop((event.data.round_id, event.data.question_id), None)
                if outcome is not None:
                    data = msgspec.structs.replace(outcome.data, revision=0)
                    in_place.append(msgspec.structs.replace(outcome, at=event.at, data=data))
            elif not isinstance(event, FeedGapFound) or not self._is_filled(event.data):
                in_place.append(event)
        return [*due, *in_place]

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
    """The record as it would have come if it had been right and in time: the first version, by the stream."""
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
