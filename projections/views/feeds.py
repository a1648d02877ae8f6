"""What each feed has delivered, how recently, and its gaps: the read model behind `/reports/feeds`. Folds `feeds`.

    F subscription                     counts and times
    G subscription number              a gap; the number counts the subscription's gaps from 0
    R subscription ts_event revision   a record; the newest follows from these two, and not from when it came
    S source                           the state of the source
    B                                  the first tick
    C                                  the last tick

Records and gaps before the horizon (PAST_DAYS) leave. Of records and gaps only the newest are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import msgspec

from coordinator.projections.folding.projection import Projection, eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Store
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
from coordinator.streams.log.counting import Decision

GAPS_READ = 100
_REVISION_MAX = (1 << 64) - 1
Subscription = tuple[str, str, str, str]
"""source, subject, kind, granularity"""


class GapRow(msgspec.Struct, kw_only=True):
    """One gap, (from_ms, until_ms] in `at`. `state` is open, filled, or missing (for good)."""

    from_ms: int
    until_ms: int
    reason: str
    state: str = "open"


class StateRow(msgspec.Struct, frozen=True, array_like=True):
    """The state of a source since `since_ms` (event time)."""

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


class TailRecord(msgspec.Struct, frozen=True, array_like=True):
    """One record of the tail."""

    ts_event: int
    revision: int
    at: int
    values: dict[str, str]
    backfilled: bool


_row_decoder = msgspec.msgpack.Decoder(FeedRow)
_gap_decoder = msgspec.msgpack.Decoder(GapRow)
_state_decoder = msgspec.msgpack.Decoder(StateRow)
_record_decoder = msgspec.msgpack.Decoder(TailRecord)


class Feeds(Projection):
    """Subscriptions and their newest records."""

    name = "feeds"
    topics = ("feeds",)
    schema = 4
    explained = frozenset((b"R",))
    leaving = (b"R", b"G")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        clock = store.get(b"C")
        self.clock = int.from_bytes(clock, "big") if clock else 0
        """The last tick (ms; 0 before it). Every source has delivered up to it, or has a gap."""
        self.first_tick = int.from_bytes(store.get(b"B") or b"", "big")
        """The first tick (ms; 0 before it)."""
        self._dirty: set[Subscription] = set()
        self._dirty_gaps: set[tuple[Subscription, int]] = set()

    # Read on first use: most questions about a past moment need only its clock.

    @cached_property
    def _rows(self) -> dict[Subscription, FeedRow]:
        rows = (_row_decoder.decode(raw) for _, raw in self.store.scan(b"F"))
        return {(row.source, row.subject, row.kind, row.granularity): row for row in rows}

    @cached_property
    def _states(self) -> dict[str, StateRow]:
        return {row.source: row for row in (_state_decoder.decode(raw) for _, raw in self.store.scan(b"S"))}

    @cached_property
    def _gaps(self) -> dict[Subscription, dict[int, GapRow]]:
        """The newest GAPS_READ gaps of each subscription by their number, oldest first."""
        return {subscription: self._read_gaps(subscription, row) for subscription, row in self._rows.items()}

    def _read_gaps(self, subscription: Subscription, row: FeedRow) -> dict[int, GapRow]:
        prefix = b"G" + key(*subscription)
        start = _gap_key(subscription, max(0, row.gap_count - GAPS_READ))
        return {
            int.from_bytes(name[len(prefix) :], "big"): _gap_decoder.decode(raw)
            for name, raw in self.store.scan(prefix, start=start)
        }

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
                    batch.put(b"C", eight(at))
                    if not self.first_tick:
                        self.first_tick = at
                        batch.put(b"B", eight(at))
                case _:
                    pass

    def _fold_gap(self, data: FeedGapData) -> None:
        """An outage is said piece by piece: a piece that begins where the last one ends makes it longer."""
        subscription, row = self._row(data)
        row.gap_reason = data.reason
        gaps = self._gaps[subscription]
        number = row.gap_count - 1
        last = gaps.get(number)
        if last is not None and last.state == "open" and last.until_ms == data.from_ms:
            last.until_ms = data.until_ms
        else:
            row.gap_count += 1
            number += 1
            gaps[number] = GapRow(from_ms=data.from_ms, until_ms=data.until_ms, reason=data.reason)
            gaps.pop(number - GAPS_READ, None)
            self.count("feeds", "gaps")
        self._dirty_gaps.add((subscription, number))

    def _fold_closing(self, data: FeedGapClosedData) -> None:
        subscription, _ = self._row(data)
        for number, gap in self._gaps[subscription].items():
            if data.from_ms <= gap.from_ms and gap.until_ms <= data.until_ms:
                gap.state = "filled" if data.complete else "missing"
                gap.reason = gap.reason if data.complete else data.reason
                self._dirty_gaps.add((subscription, number))

    def is_over(self, row_key: bytes, row: bytes, horizon: Horizon) -> bool:
        """The newest record of a subscription stays, and so do the gaps that a later event may still close."""
        del horizon
        source, subject, kind, granularity = (part.decode() for part in row_key[1:].split(b"\x00")[:4])
        feed = self._rows[source, subject, kind, granularity]
        if row_key[:1] == b"R":
            return _record_decoder.decode(row).ts_event < feed.newest
        return int.from_bytes(row_key[-8:], "big") < feed.gap_count - GAPS_READ

    def _row(self, data: FeedRecordData | FeedGapData | FeedGapClosedData) -> tuple[Subscription, FeedRow]:
        subscription = (data.source, data.subject, data.kind, data.granularity)
        row = self._rows.get(subscription)
        if row is None:
            row = FeedRow(
                source=data.source, subject=data.subject, kind=data.kind, granularity=data.granularity
            )
            self._gaps[subscription] = {}
            self._rows[subscription] = row
        self._dirty.add(subscription)
        return subscription, row

    def _fold_record(self, at: int, data: FeedRecordData, batch: Batch) -> None:
        subscription, row = self._row(data)
        row.oldest = min(row.oldest, data.ts_event) if row.record_count else data.ts_event
        row.newest = max(row.newest, data.ts_event)
        row.watermark = max(row.watermark, at)
        row.record_count += 1
        self.count("feeds", "records")
        value = TailRecord(data.ts_event, data.revision, at, data.values, data.backfilled)
        batch.put(_record_key(subscription, data.ts_event, data.revision), encode_row(value))

    def flush(self, batch: Batch) -> None:
        super().flush(batch)
        for subscription in self._dirty:
            batch.put(b"F" + key(*subscription), encode_row(self._rows[subscription]))
        for subscription, number in self._dirty_gaps:
            gap = self._gaps[subscription].get(number)
            if gap is not None:
                batch.put(_gap_key(subscription, number), encode_row(gap))
        self._dirty.clear()
        self._dirty_gaps.clear()

    def all(self) -> list[FeedRow]:
        """Every subscription, ordered by source, subject, kind and granularity."""
        return [self._rows[subscription] for subscription in sorted(self._rows)]

    def gaps(self, row: FeedRow) -> list[GapRow]:
        """The newest GAPS_READ gaps of a subscription, oldest first."""
        return list(self._gaps[row.source, row.subject, row.kind, row.granularity].values())

    def open_gap_count(self, row: FeedRow) -> int:
        """How many of the newest GAPS_READ gaps are open."""
        return sum(gap.state == "open" for gap in self.gaps(row))

    def states(self) -> list[StateRow]:
        """The state of each source that reports one, by name."""
        return [self._states[source] for source in sorted(self._states)]

    def tail(
        self, limit: int, source: str | None, subject: str | None, kind: str | None, granularity: str | None
    ) -> list[tuple[FeedRow, TailRecord]]:
        """The newest records of all subscriptions that match (None matches any), newest first."""
        filters = (source, subject, kind, granularity)
        tails = [
            (self._rows[subscription], record)
            for subscription in sorted(self._rows)
            if all(want in (None, have) for want, have in zip(filters, subscription, strict=True))
            for record in self._read_tail(subscription, limit)
        ]
        tails.sort(key=lambda tail: (tail[1].ts_event, tail[1].revision), reverse=True)
        return tails[:limit]

    def oldest(self, subscription: Subscription) -> int | None:
        """The time (ts_event, ms) of the oldest record that ever came, even if it has left; None before the first."""
        row = self._rows.get(subscription)
        return row.oldest if row is not None and row.record_count else None

    def told(
        self, subscription: Subscription, newest_ts: int, offset: int
    ) -> Iterator[tuple[int, TailRecord]]:
        """(offset in `feeds`, record) of the records with ts_event <= `newest_ts`, newest first. Each is given once, in
        its latest revision at or before `offset`.
        """
        prefix = b"R" + key(*subscription)
        start = _record_key(subscription, newest_ts, _REVISION_MAX)
        before = -1
        for name, raw in self.store.scan(prefix, start=start, backwards=True):
            record = _record_decoder.decode(raw)
            place = self.store.written_at(name)[0]
            # Revisions of a record come newest first, so the first one that was known at `offset` is the one.
            if record.ts_event == before or record.ts_event > newest_ts or place > offset:
                continue
            before = record.ts_event
            yield place, record

    def _read_tail(self, subscription: Subscription, limit: int) -> list[TailRecord]:
        """The newest `limit` records. The scan begins at the newest one, so records that came after a past moment are
        not read.
        """
        prefix = b"R" + key(*subscription)
        start = _record_key(subscription, self._rows[subscription].newest, _REVISION_MAX)
        newest_first = self.store.scan(prefix, start=start, backwards=True)
        return [_record_decoder.decode(raw) for _, raw in islice(newest_first, limit)]


def _record_key(subscription: Subscription, ts_event: int, revision: int) -> bytes:
    return b"R" + key(*subscription, ts_event, revision)


def _gap_key(subscription: Subscription, number: int) -> bytes:
    return b"G" + key(*subscription, number)
