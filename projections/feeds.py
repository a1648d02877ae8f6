"""Which feeds deliver, how much and how lately, what they lack: the read model behind `/reports/feeds`. Folds `feeds`.

Of each subscription the newest RECORDS_KEPT records and GAPS_KEPT holes stay (the log has all): which records is
decided by (ts_event, revision) alone. Of each source its last state stays, for `/healthz`.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import msgspec

from coordinator.projections.base import Projection, encode_row, key
from coordinator.projections.batch import Batch
from coordinator.projections.store import Store
from coordinator.streams.counting import Decision
from coordinator.streams.events import (
    ClockTicked,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    FeedStateChanged,
)

RECORDS_KEPT = 500
GAPS_KEPT = 100
Subscription = tuple[str, str, str, str]
"""source, subject, kind, granularity"""


class GapRow(msgspec.Struct, kw_only=True):
    """One hole, (from_ms, until_ms] in `at`. `state`: open, filled, or missing for good."""

    from_ms: int
    until_ms: int
    reason: str
    state: str = "open"


class StateRow(msgspec.Struct, frozen=True, array_like=True):
    """How a source stands since `since_ms` (event time)."""

    source: str
    state: str
    reason: str
    since_ms: int


class FeedRow(msgspec.Struct, kw_only=True):
    """One subscription. `oldest`/`newest` are ts_event, `watermark` is `at`, all ms."""

    source: str
    subject: str
    kind: str
    granularity: str
    record_count: int = 0
    oldest: int = 0
    newest: int = 0
    watermark: int = 0
    gap_count: int = 0
    gap_reason: str = ""
    gaps: list[GapRow] = []


class TailRecord(msgspec.Struct, frozen=True, array_like=True):
    """One record of the tail."""

    ts_event: int
    revision: int
    at: int
    values: dict[str, str]
    backfilled: bool


_row_decoder = msgspec.msgpack.Decoder(FeedRow)
_state_decoder = msgspec.msgpack.Decoder(StateRow)
_record_decoder = msgspec.msgpack.Decoder(TailRecord)


class Feeds(Projection):
    """Subscriptions and their newest records."""

    name = "feeds"
    topics = ("feeds",)
    schema = 2
    versioned = frozenset((b"C",))

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._rows: dict[Subscription, FeedRow] = {}
        self._tails: dict[Subscription, list[tuple[int, int]]] = {}
        for _, raw in store.scan(b"F"):
            row = _row_decoder.decode(raw)
            self._rows[row.source, row.subject, row.kind, row.granularity] = row
        for subscription in self._rows:
            self._tails[subscription] = [
                (one.ts_event, one.revision) for one in self._read_tail(subscription)
            ]
        self._dirty: set[Subscription] = set()
        self._states = {
            row.source: row for row in (_state_decoder.decode(raw) for _, raw in store.scan(b"S"))
        }
        clock = store.get(b"C")
        self.clock = int.from_bytes(clock, "big") if clock else 0
        """The last tick: every source has delivered up to it, or has a gap."""

    def apply(self, decision: Decision, batch: Batch) -> None:
        for event in decision.events:
            match event:
                case FeedRecordReceived(at=at, data=data):
                    self._fold_record(at, data, batch)
                case FeedGapFound(data=data):
                    self._fold_gap(data)
                case FeedGapClosed(data=data):
                    self._fold_closing(data)
                case FeedStateChanged(at=at, data=data):
                    state = StateRow(data.source, data.state, data.reason, at)
                    self._states[data.source] = state
                    batch.put(b"S" + key(data.source), encode_row(state))
                case ClockTicked(at=at) if at > self.clock:
                    self.clock = at
                    batch.put(b"C", at.to_bytes(8, "big"))
                case _:
                    pass

    def _fold_gap(self, data: FeedGapData) -> None:
        """An outage is said piece by piece: a piece that begins where the last one ends makes it longer."""
        row = self._row(data)
        row.gap_reason = data.reason
        last = row.gaps[-1] if row.gaps else None
        if last is not None and last.state == "open" and last.until_ms == data.from_ms:
            last.until_ms = data.until_ms
            return
        row.gap_count += 1
        row.gaps.append(GapRow(from_ms=data.from_ms, until_ms=data.until_ms, reason=data.reason))
        del row.gaps[:-GAPS_KEPT]
        self.count("feeds", "gaps")

    def _fold_closing(self, data: FeedGapClosedData) -> None:
        row = self._row(data)
        for gap in row.gaps:
            if data.from_ms <= gap.from_ms and gap.until_ms <= data.until_ms:
                gap.state = "filled" if data.complete else "missing"
                gap.reason = gap.reason if data.complete else data.reason

    def _row(self, data: FeedRecordData | FeedGapData | FeedGapClosedData) -> FeedRow:
        subscription = (data.source, data.subject, data.kind, data.granularity)
        row = self._rows.get(subscription)
        if row is None:
            row = self._rows[subscription] = FeedRow(
                source=data.source, subject=data.subject, kind=data.kind, granularity=data.granularity
            )
            self._tails[subscription] = []
        self._dirty.add(subscription)
        return row

    def _fold_record(self, at: int, data: FeedRecordData, batch: Batch) -> None:
        row = self._row(data)
        row.oldest = min(row.oldest, data.ts_event) if row.record_count else data.ts_event
        row.newest = max(row.newest, data.ts_event)
        row.watermark = max(row.watermark, at)
        row.record_count += 1
        self.count("feeds", "records")
        subscription = (data.source, data.subject, data.kind, data.granularity)
        tail = self._tails[subscription]
        place = (data.ts_event, data.revision)
        if not tail or place > tail[-1]:
            tail.append(place)
        else:
            i = bisect_left(tail, place)
            if tail[i] != place:
                insort(tail, place)
        value = TailRecord(data.ts_event, data.revision, at, data.values, data.backfilled)
        batch.put(_tail_key(subscription, *place), encode_row(value))
        while len(tail) > RECORDS_KEPT:
            batch.delete(_tail_key(subscription, *tail.pop(0)))

    def flush(self, batch: Batch) -> None:
        super().flush(batch)
        for subscription in self._dirty:
            batch.put(b"F" + key(*subscription), encode_row(self._rows[subscription]))
        self._dirty.clear()

    def all(self) -> list[FeedRow]:
        """Every subscription, in order of its four dimensions."""
        return [self._rows[subscription] for subscription in sorted(self._rows)]

    def states(self) -> list[StateRow]:
        """How each source that says so stands, by name."""
        return [self._states[source] for source in sorted(self._states)]

    def tail(
        self, limit: int, source: str | None, subject: str | None, kind: str | None, granularity: str | None
    ) -> list[tuple[FeedRow, TailRecord]]:
        """The newest records of all subscriptions that match (None matches any), newest first."""
        wanted = (source, subject, kind, granularity)
        found = [
            (self._rows[subscription], record)
            for subscription in sorted(self._rows)
            if all(want in (None, have) for want, have in zip(wanted, subscription, strict=True))
            for record in self._read_tail(subscription)[-limit:]
        ]
        found.sort(key=lambda one: (one[1].ts_event, one[1].revision), reverse=True)
        return found[:limit]

    def _read_tail(self, subscription: Subscription) -> list[TailRecord]:
        return [_record_decoder.decode(raw) for _, raw in self.store.scan(b"R" + key(*subscription))]


def _tail_key(subscription: Subscription, ts_event: int, revision: int) -> bytes:
    return b"R" + key(*subscription, ts_event, revision)
