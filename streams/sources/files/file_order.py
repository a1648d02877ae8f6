"""Checks the rows of a file against each other: order, repeats, contradictions, trades of one millisecond; and counts.

Pure. Takes records with their line numbers, in order of time; yields each record once.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal
from pathlib import Path

import msgspec

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import same_values
from coordinator.streams.sources.files.file_times import utc_text

SPACING_RECORDS_MIN = 10
LEAP = 10
"""A price that is this many times the one before, or this fraction of it, is reported."""
LEAPS_KEPT = 20
_AMOUNTS = ("quantity", "qty", "q", "amount", "size", "quote_quantity", "quote_qty")
_EXACT = Context(prec=400)

Item = tuple[int, FeedRecord, str]
"""(line number, record, trade id)"""


class Account(msgspec.Struct):
    """What was found in a file: counts, times in ms, and reported price jumps."""

    records: int = 0
    refused: int = 0
    repeated: int = 0
    empty: int = 0
    unfinished: int = 0
    first_at: int | None = None
    last_at: int | None = None
    leaps: list[str] = []

    def add(self, other: Account) -> None:
        """Add the counts of another file."""
        self.records += other.records
        self.refused += other.refused
        self.repeated += other.repeated
        self.empty += other.empty
        self.unfinished += other.unfinished
        self.leaps += other.leaps

    def text(self) -> str:
        """The counts as text, without those that are zero."""
        parts = [f"{self.records:,} records"]
        counts = (
            (self.refused, "rows refused"),
            (self.repeated, "rows that came again"),
            (self.empty, "times without a price (holes)"),
            (self.unfinished, "candles that are not over yet"),
        )
        return ", ".join(parts + [f"{count:,} {noun}" for count, noun in counts if count])


class OutOfOrderError(Exception):
    """A row's time is before that of a row above it."""


class _Held(msgspec.Struct):
    """What is known of one time until now: its first line, its record, the row's own revision, its trade ids."""

    line: int
    record: FeedRecord
    revision: int
    trade_ids: set[str]


class Order:
    """Finds repeats and contradictions in ordered rows, and joins several trades of one millisecond into one tick.

    Holds back one record of each subscription, because the next row may be of the same time.
    """

    def __init__(self, path: Path, account: Account) -> None:
        self._path = path
        self._account = account
        self._held: dict[Subscription, _Held] = {}

    def records(self, items: Iterator[Item]) -> Iterator[FeedRecord]:
        """The records, each once. Raises OperatorError for a contradiction, OutOfOrderError."""
        last_at = -1
        for line, record, trade_id in items:
            if record.at < last_at:
                raise OutOfOrderError
            if record.at > last_at:
                yield from self._release()
                last_at = record.at
            subscription = Subscription(record.source, record.subject, record.kind, record.granularity)
            held = self._held.get(subscription)
            if held is not None and held.revision == record.revision:
                self._join(held, line, record, trade_id)
                continue
            if held is not None:
                if held.revision > record.revision:
                    raise OutOfOrderError
                self._account.records += 1
                yield held.record
            self._held[subscription] = _Held(line, record, record.revision, {trade_id})
        yield from self._release()

    def _release(self) -> Iterator[FeedRecord]:
        for held in self._held.values():
            self._account.records += 1
            yield held.record
        self._held.clear()

    def _join(self, held: _Held, line: int, record: FeedRecord, trade_id: str) -> None:
        before = held.record
        if trade_id in held.trade_ids if trade_id else same_values(before.values, record.values):
            self._account.repeated += 1
            return
        if record.kind != "tick":
            name = next(
                (each for each, text in record.values.items() if before.values.get(each) != text), "its names"
            )
            raise OperatorError(
                f"{self._path}, line {line}: {utc_text(record.ts_event)} occurs already with other values (line "
                f"{held.line} has {name} {before.values.get(name, '-')}, this one {record.values.get(name, '-')}); "
                "remove the wrong one"
            )
        values = dict(record.values)
        for name in _AMOUNTS:
            if name in values and name in before.values:
                values[name] = f"{_EXACT.add(Decimal(before.values[name]), Decimal(values[name])):f}"
        held.record = msgspec.structs.replace(record, values=values, revision=before.revision + 1)
        held.trade_ids.add(trade_id)


class Check:
    """Finds what only the whole file shows: how far apart its candles are, and price jumps."""

    def __init__(self, account: Account) -> None:
        self._account = account
        account.first_at = account.last_at = None
        account.leaps = []
        self._last: dict[Subscription, FeedRecord] = {}
        self._steps_ms: dict[Subscription, tuple[int, int]] = {}

    def add(self, record: FeedRecord) -> None:
        """Take the next record, in order."""
        account = self._account
        account.first_at = record.at if account.first_at is None else account.first_at
        account.last_at = record.at
        if record.kind not in ("candle", "tick"):
            return
        subscription = Subscription(record.source, record.subject, record.kind, record.granularity)
        before = self._last.get(subscription)
        self._last[subscription] = record
        if before is None or before.ts_event == record.ts_event:
            return
        if record.kind == "candle":
            count, least = self._steps_ms.get(subscription, (0, 1 << 62))
            self._steps_ms[subscription] = (count + 1, min(least, record.ts_event - before.ts_event))
        name = "close" if record.kind == "candle" else "price"
        old, new = float(before.values[name]), float(record.values[name])
        if (old > 0 and new > 0 and not old / LEAP < new < old * LEAP) and len(account.leaps) < LEAPS_KEPT:
            account.leaps.append(
                f"{record.subject} {utc_text(record.ts_event)}: {name} {record.values[name]} "
                f"after {before.values[name]}"
            )

    def wider_than_said(self) -> tuple[Subscription, int] | None:
        """The first subscription whose candles are never as close as its granularity; their smallest distance (ms)."""
        for subscription, (count, least) in self._steps_ms.items():
            if count + 1 >= SPACING_RECORDS_MIN and least > granularity_ms(subscription.granularity):
                return subscription, least
        return None
