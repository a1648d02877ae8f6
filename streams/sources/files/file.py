"""Any file as a feed: JSON lines or CSV that are followed as they grow, or a whole CSV, JSON-lines or Parquet file.

Option `path`: a `.jsonl`, `.ndjson`, `.csv` or `.parquet` file. `{subject}` in it is replaced by the subject (without
slashes); otherwise the rows name their `subject`, or there is only one subject. `given_rows` defines the rows. `stream`
yields what is written from now on, as soon as a line is complete; `history` reads the file from its start. A line that
is not a record goes to `on_garbage`, and the next line is read. A missing file is waited for. A Parquet file does not
grow, so its stream is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from coordinator.streams.clock import wall_ms
from coordinator.streams.granularity import GRANULARITIES_MS, granularity_ms
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.files.candles import path_for
from coordinator.streams.sources.files.file_records import plain_symbol
from coordinator.streams.sources.files.file_rows import (
    READING_OPTIONS,
    CsvSheet,
    Hole,
    Reading,
    Records,
    Row,
    json_row,
    reading_of,
    rows_of_file,
)
from coordinator.streams.sources.files.grown_lines import GrownLines, Line
from coordinator.streams.sources.merged_streams import merged
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.waiting import Patience, log_garbage

KINDS = ("candle", "tick", "depth", "funding")
ENDINGS = (".jsonl", ".ndjson", ".csv", ".parquet")
_BATCH_ROWS = 8_192


class FileSource:
    """The feed source `file`."""

    name = "file"
    about = "a CSV or JSON-lines file followed as it grows, or a whole Parquet file; option path"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        dict.fromkeys(KINDS, tuple(GRANULARITIES_MS))
    )

    def __init__(
        self,
        path: str,
        on_garbage: OnGarbage | None = None,
        *,
        poll_seconds: float = 0.2,
        patience: Patience | None = None,
        now_ms: Callable[[], int] = wall_ms,
        reading: Reading | None = None,
    ) -> None:
        if not path.lower().endswith(ENDINGS):
            raise OperatorError(f"file: path {path!r} should end in one of {', '.join(ENDINGS)}")
        self._path = path
        self._garbage = on_garbage or log_garbage
        self._poll_seconds = poll_seconds
        self._patience_ms = (patience or Patience()).future_ms_max
        self._now_ms = now_ms
        self._reading = reading or Reading()
        self._made = Records(self._reading)
        self.health = SourceHealth()

    @classmethod
    def from_options(cls, texts: Mapping[str, str], on_garbage: OnGarbage | None = None) -> FileSource:
        """The source with its `FEED_OPT_*` options. Raises OperatorError."""
        options = Options(cls.name, texts, ("path", "poll_seconds", *READING_OPTIONS))
        if not options.text("path"):
            raise OperatorError("feed source 'file' needs the option path: set FEED_OPT_PATH=FILE.jsonl")
        return cls(
            options.text("path"),
            on_garbage,
            poll_seconds=options.seconds("poll_seconds", 0.2),
            reading=reading_of(options),
        )

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """The file's records with start_ms <= at <= end_ms, in order of `at`; holds them in memory.

        Raises WorldError if the file does not exist, OperatorError if it cannot be used.
        """
        granularity_ms(subscription.granularity)
        path = self._path_of(subscription)
        records: list[FeedRecord] = []
        try:
            for count, row in enumerate(self._rows(path, subscription.kind)):
                if count % _BATCH_ROWS == 0:
                    await asyncio.sleep(0)
                record = self._record(path, row, [subscription])
                if record is not None and start_ms <= record.at <= end_ms:
                    records.append(record)
        except FileNotFoundError as error:
            raise WorldError(f"file: {path}: there is no such file") from error
        except OSError as error:
            raise OperatorError(f"file: {path} cannot be read: {error.strerror or error}") from error
        for record in sorted(records, key=lambda record: (record.at, record.revision)):
            yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """The records that are written from now on, without end."""
        by_path: dict[Path, list[Subscription]] = {}
        for subscription in subscriptions:
            granularity_ms(subscription.granularity)
            by_path.setdefault(self._path_of(subscription), []).append(subscription)
        if not by_path:
            return
        parts = [self._followed(path, wanted) for path, wanted in by_path.items()]
        async with aclosing(merged(parts)) as records:
            async for record in records:
                yield record

    def _path_of(self, subscription: Subscription) -> Path:
        return path_for(self._path, subscription.subject)

    async def _followed(self, path: Path, wanted: Sequence[Subscription]) -> AsyncGenerator[FeedRecord, None]:
        if path.suffix.lower() == ".parquet":
            await asyncio.Event().wait()
        with closing(GrownLines(path, at_end=True)) as grown:
            sheet = self._sheet_of(path, wanted[0].kind)
            while True:
                try:
                    lines = grown.read()
                except OSError as error:
                    lines = []
                    self.health.state, self.health.reason = "reconnecting", f"{path}: {error.strerror}"
                else:
                    self._heard(path)
                for line in lines:
                    if path.suffix.lower() == ".csv" and line.first:
                        sheet = self._sheet(path, line, wanted[0].kind)
                        if not sheet.headless:
                            continue
                    row = self._row(line, sheet, wanted[0].kind)
                    record = row and self._record(path, row, wanted)
                    if record:
                        yield record
                await asyncio.sleep(0 if lines else self._poll_seconds)

    def _heard(self, path: Path) -> None:
        if not path.is_file():
            self.health.state, self.health.reason = "reconnecting", f"{path}: there is no such file"
        elif self.health.state != "connected":
            self.health.state, self.health.reason = "connected", ""
            self.health.connections += 1

    # --- rows ---------------------------------------------------------------------------------------

    def _rows(self, path: Path, kind: str) -> Iterator[Row]:
        """The rows of the whole file as of now, without an incomplete last line."""
        if path.suffix.lower() == ".parquet":
            path.stat()  # raises FileNotFoundError, which means to wait for the file
            yield from rows_of_file(path, kind, self._reading)
            return
        sheet: CsvSheet | None = None
        for line in _lines_of(path):
            if path.suffix.lower() == ".csv" and line.first:
                sheet = self._sheet(path, line, kind)
                if not sheet.headless:
                    continue
            row = self._row(line, sheet, kind)
            if row is not None:
                yield row

    def _sheet_of(self, path: Path, kind: str) -> CsvSheet | None:
        if path.suffix.lower() != ".csv":
            return None
        try:
            first = next(_lines_of(path), None)
        except OSError:
            return None  # the file does not exist yet: its first line will be the header
        return None if first is None else self._sheet(path, first, kind)

    def _sheet(self, path: Path, first: Line, kind: str) -> CsvSheet:
        sheet = CsvSheet(first.text, kind, self._reading)
        if sheet.fault:
            raise OperatorError(f"file: {path}: {sheet.fault}")
        return sheet

    def _row(self, line: Line, sheet: CsvSheet | None, kind: str) -> Row | None:
        if not line.text:
            return None
        number = (
            line.number or -line.start_byte
        )  # below zero: a byte offset, where the lines before were not counted
        if line.fault:
            return Row(number, line.text, fault=line.fault)
        if sheet is None:
            return json_row(number, line.text, kind, self._reading)
        return sheet.row(number, line.text)

    def _record(self, path: Path, row: Row, wanted: Sequence[Subscription]) -> FeedRecord | None:
        place = f"line {row.line_number}" if row.line_number > 0 else f"byte {-row.line_number}"
        try:
            if row.fault:
                raise ValueError(row.fault)
            subject = self._made.whose(row).get("subject")
            if subject is None and len(wanted) > 1:
                raise ValueError(f"the row names no subject, and {len(wanted)} are followed")
            subscription = next(
                (
                    each
                    for each in wanted
                    if subject is None or plain_symbol(subject) == plain_symbol(each.subject)
                ),
                None,
            )
            if subscription is None:
                return None  # the file may hold other subjects, too
            now_ms = self._now_ms() + (0 if subscription.kind == "candle" else self._patience_ms)
            record = self._made.record(row, subscription, now_ms)
            if record is Hole.OPEN:
                raise ValueError("its candle is not over yet; write it once it is")
        except ValueError as error:
            time = self._made.time_text(row, wanted[0].kind)
            self._refused(f"{path.name}, {place}{', ' if time else ''}{time}: {error}", row.text)
            return None
        return record if isinstance(record, FeedRecord) else None

    def _refused(self, reason: str, text: str) -> None:
        self.health.refused += 1
        self._garbage(reason, text)


def _lines_of(path: Path) -> Iterator[Line]:
    """All complete lines of the file as of now. Raises OSError."""
    with path.open("rb"):
        pass  # raises at once if the file does not exist or may not be read
    with closing(GrownLines(path)) as grown:
        while lines := grown.read():
            yield from lines
