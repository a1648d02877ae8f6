"""Candles from a file, as feed records in order of time.

Reads CSV, gzipped CSV or Parquet; gives `FeedRecord`s, oldest first. A row that is no candle does not stop
the reading: it is handed over as a `BadRow`, so that the feed worker can write a dead letter. A file that is
wrong as a whole (missing, truncated, of another granularity, newest first) is an OperatorError, raised
before the first record, because a candle taken for a shorter one would show models the future.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import msgspec

from coordinator.streams.errors import OperatorError
from coordinator.streams.granularity import GRANULARITIES_MS, granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_columns import RawRow, TimeUnit, time_ms, unit_of
from coordinator.streams.sources.candle_files import raw_rows
from coordinator.streams.sources.candle_values import VALUE_NAMES, OnGarbage, candle_fault, same_values

# Rows that are looked at before the first is given: enough to tell the file's order and spacing.
_HEAD_ROWS = 1_000
_SPACING_ROWS_MIN = 10


class BadRow(msgspec.Struct, frozen=True):
    """A row that is no candle. `line_number` counts lines from 1 (rows, in Parquet); `text` is the row."""

    line_number: int
    reason: str
    text: str


def iter_candles(
    path: str | Path,
    subscription: Subscription,
    start_ms: int | None = None,
    end_ms: int | None = None,
    on_bad_row: Callable[[BadRow], None] | None = None,
) -> Iterator[FeedRecord]:
    """Records with start_ms <= at <= end_ms in order of `at`, with a bounded memory.

    `at` is open time + granularity; values are the file's own text. Bad rows go to `on_bad_row` as they are
    met; without one, the first stops the reading, since nothing may disappear. A row that repeats the last
    one is dropped. Raises OperatorError for a file that cannot be used.
    """
    path = Path(path)
    granularity_ms(subscription.granularity)
    judged = _judged_rows(path, subscription)
    for item in judged:
        if isinstance(item, BadRow):
            if on_bad_row is None:
                raise OperatorError(f"{path}, line {item.line_number}: {item.reason}")
            on_bad_row(item)
            continue
        if end_ms is not None and item.at > end_ms:
            return
        if start_ms is None or item.at >= start_ms:
            yield item


def read_candles(
    path: str | Path,
    subscription: Subscription,
    start_ms: int | None = None,
    end_ms: int | None = None,
    on_bad_row: Callable[[BadRow], None] | None = None,
) -> list[FeedRecord]:
    """As `iter_candles`, all at once."""
    return list(iter_candles(path, subscription, start_ms, end_ms, on_bad_row))


class CandleFileSource:
    """A feed source over files. Option `path` may hold `{subject}`, for one file per subject."""

    name = "candles"
    about = "candles from a CSV, gzipped CSV or Parquet file, read once; option path"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"candle": tuple(GRANULARITIES_MS)})

    def __init__(self, path: str, on_garbage: OnGarbage | None = None) -> None:
        self._path = path
        self._on_garbage = on_garbage

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """Records of the file with start_ms <= at <= end_ms."""
        path = Path(self._path.replace("{subject}", subscription.subject.replace("/", "")))
        for record in iter_candles(path, subscription, start_ms, end_ms, self._bad_row_handler(path)):
            yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Nothing: a file knows no more than its history. Raises OperatorError for a file that serves two."""
        if len(subscriptions) > 1 and "{subject}" not in self._path:
            raise OperatorError(
                f"{self._path}: one file cannot be {len(subscriptions)} subjects; "
                "put {subject} where its name has the subject"
            )
        return
        yield

    def _bad_row_handler(self, path: Path) -> Callable[[BadRow], None] | None:
        on_garbage = self._on_garbage
        if on_garbage is None:
            return None
        return lambda row: on_garbage(f"{path.name}, line {row.line_number}: {row.reason}", row.text)


def _judged_rows(path: Path, subscription: Subscription) -> Iterator[FeedRecord | BadRow]:
    rows = raw_rows(path)
    first_rows = list(islice(rows, _HEAD_ROWS))
    if not first_rows:
        raise OperatorError(f"{path}: there is a header but no row under it")
    judge = _Judge(subscription, _usual_unit(first_rows))
    judged = judge.judge(chain(first_rows, rows))
    head = list(islice(judged, _HEAD_ROWS))
    _refuse_wrong_file(path, judge, head)
    yield from chain(head, judged)


def _usual_unit(rows: Sequence[RawRow]) -> TimeUnit:
    """The unit that most of the rows have, so that one mangled time does not decide for the file."""
    units = Counter(row.unit or unit_of(row.time) for row in rows if not row.fault)
    return units.most_common(1)[0][0] if units else TimeUnit.ISO


def _refuse_wrong_file(path: Path, judge: _Judge, head: list[FeedRecord | BadRow]) -> None:
    records = [item for item in head if isinstance(item, FeedRecord)]
    bad = [item for item in head if isinstance(item, BadRow)]
    if not records:
        raise OperatorError(
            f"{path}, line {bad[0].line_number}: {bad[0].reason}; "
            f"none of the first {len(bad)} rows is a candle"
        )
    if judge.backward_rows > len(records):
        raise OperatorError(f"{path}: its times run backwards; sort it, oldest first")
    if judge.overlapping_rows > len(records):
        raise OperatorError(
            f"{path}: its rows are closer than {judge.granularity}; set the granularity that it has"
        )
    steps = [later.ts_event - earlier.ts_event for earlier, later in pairwise(records)]
    if len(records) >= _SPACING_ROWS_MIN and min(steps) > judge.granularity_ms:
        raise OperatorError(
            f"{path}: its rows are {min(steps) / 1000:g} s apart or more, which is not {judge.granularity}; "
            "set the granularity that it has"
        )


class _Judge:
    """Tells good rows from bad ones.

    Holds one record back: only the next row shows whether a leap forward is a hole in the data or one
    mangled time, after which every good row would seem to go backwards.
    """

    def __init__(self, subscription: Subscription, unit: TimeUnit) -> None:
        self._subscription = subscription
        self._unit = unit
        self.granularity = subscription.granularity
        self.granularity_ms = granularity_ms(subscription.granularity)
        self.backward_rows = 0
        self.overlapping_rows = 0

    def judge(self, rows: Iterable[RawRow]) -> Iterator[FeedRecord | BadRow]:
        """Each row's record, or why there is none; nothing for a row that repeats the one before."""
        earliest_ms: int | None = None
        held: tuple[RawRow, FeedRecord] | None = None
        for row in rows:
            record = self._record(row)
            if isinstance(record, BadRow):
                yield record
                continue
            if held is None:
                held = (row, record)
                continue
            held_row, held_record = held
            held_ms, open_ms = held_record.ts_event, record.ts_event
            if open_ms < held_ms and (earliest_ms is None or open_ms >= earliest_ms):
                self.backward_rows += 1
                yield _bad(held_row, f"time {held_ms} is ahead of the row that follows, {open_ms}")
                held = (row, record)
                continue
            if open_ms == held_ms and same_values(record.values, held_record.values):
                continue
            fault = self._order_fault(open_ms, held_ms)
            if fault is not None:
                yield _bad(row, fault)
                continue
            yield held_record
            earliest_ms = held_record.at
            held = (row, record)
        if held is not None:
            yield held[1]

    def _record(self, row: RawRow) -> FeedRecord | BadRow:
        if row.fault:
            return _bad(row, row.fault)
        values = dict(zip(VALUE_NAMES, row.values, strict=True))
        fault = candle_fault(values)
        if fault is not None:
            return _bad(row, fault)
        try:
            open_ms = self._open_ms(row)
        except ValueError as error:
            return _bad(row, str(error))
        return FeedRecord(
            source=self._subscription.source,
            subject=self._subscription.subject,
            kind=self._subscription.kind,
            granularity=self.granularity,
            ts_event=open_ms,
            at=open_ms + self.granularity_ms,
            values=values,
        )

    def _open_ms(self, row: RawRow) -> int:
        unit = row.unit or unit_of(row.time)
        open_ms = time_ms(row.time, unit)
        if unit is not self._unit:
            raise ValueError(f"time {row.time} is in {unit}, the other rows are in {self._unit}")
        return open_ms

    def _order_fault(self, open_ms: int, last_ms: int) -> str | None:
        if open_ms == last_ms:
            return f"time {open_ms} is there already, with other values"
        if open_ms < last_ms:
            self.backward_rows += 1
            return f"time {open_ms} comes after {last_ms}: it goes backwards"
        if open_ms < last_ms + self.granularity_ms:
            self.overlapping_rows += 1
            return f"time {open_ms} lies inside the {self.granularity} candle that opened at {last_ms}"
        return None


def _bad(row: RawRow, reason: str) -> BadRow:
    return BadRow(row.line_number, reason, row.text)
