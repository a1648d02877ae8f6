"""Any file as a feed: JSON lines or CSV followed as they grow, and a whole CSV, JSON-lines or Parquet file.

Option `path`: a `.jsonl`, `.ndjson`, `.csv` or `.parquet` file; `{subject}` in it stands for the subject
(without slashes), else the rows say their `subject`, or there is one subject. `file_rows` says what a row is.
`stream` gives what is written from now on, as soon as a line is whole; `history` reads the file from its
start. A line that is no record goes to `on_garbage`, and the next one is read. A file that is not there (yet)
is waited for; a Parquet file does not grow, so its stream is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from coordinator.streams.errors import OperatorError, WorldError
from coordinator.streams.granularity import GRANULARITIES_MS, granularity_ms
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.file_rows import (
    Row,
    names_of,
    record_of_row,
    row_of_csv,
    row_of_json,
    subject_of,
)
from coordinator.streams.sources.grown_lines import GrownLines, Line
from coordinator.streams.sources.merged import merged
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.waiting import Patience, future_fault, log_garbage, wall_ms

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
    ) -> None:
        if not path.lower().endswith(ENDINGS):
            raise OperatorError(f"file: path {path!r} should end in one of {', '.join(ENDINGS)}")
        self._path = path
        self._garbage = on_garbage or log_garbage
        self._poll_seconds = poll_seconds
        self._patience = patience or Patience()
        self._now_ms = now_ms
        self.health = SourceHealth()

    @classmethod
    def from_options(cls, given: Mapping[str, str], on_garbage: OnGarbage | None = None) -> FileSource:
        """The source with its `FEED_OPT_*` options. Raises OperatorError."""
        options = Options(cls.name, given, ("path", "poll_seconds"))
        if not options.text("path"):
            raise OperatorError("feed source 'file' needs the option path: set FEED_OPT_PATH=FILE.jsonl")
        return cls(options.text("path"), on_garbage, poll_seconds=options.seconds("poll_seconds", 0.2))

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """The file's records with start_ms <= at <= end_ms, in order of `at`; holds those in memory.

        Raises WorldError while there is no such file, OperatorError for one that cannot be used.
        """
        granularity_ms(subscription.granularity)
        path = self._path_of(subscription)
        found: list[FeedRecord] = []
        try:
            for count, (row, text) in enumerate(self._rows(path)):
                if count % _BATCH_ROWS == 0:
                    await asyncio.sleep(0)
                record = self._record(row, text, [subscription])
                if record is not None and start_ms <= record.at <= end_ms:
                    found.append(record)
        except FileNotFoundError as error:
            raise WorldError(f"file: {path}: there is no such file") from error
        except OSError as error:
            raise OperatorError(f"file: {path} cannot be read: {error.strerror or error}") from error
        for record in sorted(found, key=lambda one: (one.at, one.revision)):
            yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """What is written from now on, for ever."""
        by_path: dict[Path, list[Subscription]] = {}
        for one in subscriptions:
            granularity_ms(one.granularity)
            by_path.setdefault(self._path_of(one), []).append(one)
        if not by_path:
            return
        parts = [self._followed(path, wanted) for path, wanted in by_path.items()]
        async with aclosing(merged(parts)) as records:
            async for record in records:
                yield record

    def _path_of(self, subscription: Subscription) -> Path:
        return Path(self._path.replace("{subject}", subscription.subject.replace("/", "")))

    async def _followed(self, path: Path, wanted: Sequence[Subscription]) -> AsyncGenerator[FeedRecord, None]:
        if path.suffix.lower() == ".parquet":
            await asyncio.Event().wait()
        with closing(GrownLines(path, at_end=True)) as grown:
            names = self._header_of(path)
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
                        names = self._names(line)
                        continue
                    row = self._row(path, line, names)
                    record = row and self._record(row, line.text, wanted)
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

    def _rows(self, path: Path) -> Iterator[tuple[Row, str]]:
        """(row, its text), for the whole file as it stands. A line without its end may still grow: it waits."""
        if path.suffix.lower() == ".parquet":
            from coordinator.streams.sources.file_parquet import parquet_rows  # noqa: PLC0415 - a large library

            yield from ((row, str(row)) for row in parquet_rows(path))
            return
        names: tuple[str, ...] = ()
        for line in _lines_of(path):
            if path.suffix.lower() == ".csv" and line.first:
                names = self._names(line)
                continue
            row = self._row(path, line, names)
            if row is not None:
                yield row, line.text

    def _header_of(self, path: Path) -> tuple[str, ...]:
        if path.suffix.lower() != ".csv":
            return ()
        try:
            first = next(_lines_of(path), None)
        except OSError:
            return ()  # not there yet: its first line will come
        return () if first is None else self._names(first)

    def _names(self, header: Line) -> tuple[str, ...]:
        try:
            return names_of(header.text)
        except ValueError as error:
            raise OperatorError(f"file: {self._path}: {error}") from error

    def _row(self, path: Path, line: Line, names: tuple[str, ...]) -> Row | None:
        if not line.text:
            return None
        try:
            if line.fault:
                raise ValueError(line.fault)
            return row_of_csv(line.text, names) if path.suffix.lower() == ".csv" else row_of_json(line.text)
        except ValueError as error:
            self._refused(f"{path.name}: {error}", line.text)
            return None

    def _record(self, row: Row, text: str, wanted: Sequence[Subscription]) -> FeedRecord | None:
        subject = subject_of(row)
        if subject is None and len(wanted) > 1:
            self._refused(f"{self._path}: the row names no subject, and {len(wanted)} are followed", text)
            return None
        subscription = next((one for one in wanted if subject in (None, one.subject)), None)
        if subscription is None:
            return None  # a file may hold more than was asked for
        try:
            record = record_of_row(row, subscription)
            fault = future_fault(record.at, self._now_ms(), self._patience)
            if fault is not None:
                raise ValueError(fault)
        except ValueError as error:
            self._refused(f"{self._path}: {error}", text)
            return None
        return record

    def _refused(self, reason: str, text: str) -> None:
        self.health.refused += 1
        self._garbage(reason, text)


def _lines_of(path: Path) -> Iterator[Line]:
    """All lines of the file as it stands now. Raises OSError."""
    with path.open("rb"):
        pass  # a file that is not there, or may not be read, is said at once
    with closing(GrownLines(path)) as grown:
        while lines := grown.read():
            yield from lines
