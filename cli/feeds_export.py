"""What the log holds of one feed, as files by day. Reads `feeds`; writes Parquet or CSV, each file whole or not at all.

The log is read once to count the days, then once for every DAYS_RECORDS_MAX records: memory is bounded by that, not
by the history.
"""

from __future__ import annotations

import csv
import io
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote

from coordinator.cli.feed_log import FeedLog
from coordinator.infra.whole_file import writing_whole
from coordinator.streams.durations import DAY_MS
from coordinator.streams.events import FeedRecordData, FeedRecordReceived
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings

DAYS_RECORDS_MAX = 1_000_000
Row = tuple[int, int, bool, dict[str, str]]
"""(revision, at, backfilled, values)"""
Rows = dict[int, Row]
"""By ts_event."""


async def export_days(
    settings: Settings,
    subscription: Subscription,
    start_ms: int,
    end_ms: int,
    out: Path,
    file_format: str,
    on_progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """(records, days) written: those with start_ms <= ts_event < end_ms."""
    counts: Tally[int] = Tally()
    async for _, data in _records(settings, subscription, start_ms, end_ms, on_progress):
        counts[data.ts_event // DAY_MS] += 1
    folder = out.joinpath(
        *(
            f"{name}={quote(getattr(subscription, name), safe='')}"
            for name in ("source", "subject", "kind", "granularity")
        )
    )
    written = 0
    for days in _parts(counts):
        rows_of_day: dict[int, Rows] = {day: {} for day in days}
        async for at, data in _records(settings, subscription, start_ms, end_ms, on_progress):
            rows = rows_of_day.get(data.ts_event // DAY_MS)
            if rows is not None and (data.ts_event not in rows or rows[data.ts_event][0] <= data.revision):
                rows[data.ts_event] = (data.revision, at, data.backfilled, data.values)
        for day, rows in rows_of_day.items():
            date = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()
            _write(folder / f"date={date}", file_format, rows)
            written += len(rows)
    return written, len(counts)


async def _records(
    settings: Settings,
    subscription: Subscription,
    start_ms: int,
    end_ms: int,
    on_progress: Callable[[int, int], None],
) -> AsyncIterator[tuple[int, FeedRecordData]]:
    async with FeedLog(settings) as log:
        async for decision in log.decisions(on_progress):
            for event in decision.events:
                if isinstance(event, FeedRecordReceived) and start_ms <= event.data.ts_event < end_ms:
                    data = event.data
                    if Subscription(data.source, data.subject, data.kind, data.granularity) == subscription:
                        yield event.at, data


def _parts(counts: Tally[int]) -> Iterator[list[int]]:
    part: list[int] = []
    rows_held = 0
    for day in sorted(counts):
        if part and rows_held + counts[day] > DAYS_RECORDS_MAX:
            yield part
            part, rows_held = [], 0
        part.append(day)
        rows_held += counts[day]
    if part:
        yield part


def _write(folder: Path, file_format: str, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name for _, _, _, values in rows.values() for name in values}, key=_place)
    ordered = sorted(rows.items())
    with writing_whole(folder / f"records.{file_format}") as file:
        if file_format == "csv":
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["ts_event", "at", "revision", "backfilled", *names])
            for ts_event, (revision, at, backfilled, values) in ordered:
                cells = [values.get(name, "") for name in names]
                writer.writerow([ts_event, at, revision, str(backfilled).lower(), *cells])
            text.detach()
        else:
            _write_parquet(file, names, ordered)


def _write_parquet(file: IO[bytes], names: list[str], ordered: list[tuple[int, Row]]) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = {
        "ts_event": pa.array([ts_event for ts_event, _ in ordered], pa.int64()),
        "at": pa.array([row[1] for _, row in ordered], pa.int64()),
        "revision": pa.array([row[0] for _, row in ordered], pa.int32()),
        "backfilled": pa.array([row[2] for _, row in ordered], pa.bool_()),
    }
    columns |= {name: pa.array([row[3].get(name) for _, row in ordered], pa.string()) for name in names}
    pq.write_table(pa.table(columns), file, compression="zstd", write_page_checksum=True)


def _place(name: str) -> tuple[int, str]:
    usual = ("open", "high", "low", "close", "volume", "price", "size")
    return (usual.index(name) if name in usual else len(usual), name)
