"""Records out of a file or a folder of files that an operator gives: CSV, CSV.gz, JSON lines, Parquet; any kind.

Which subscription a row belongs to is told by its own columns (source, subject, kind, granularity), else by folders
named like `subject=BTCUSDT` above it (as `coordinator feeds export` writes them), else by the defaults given. A row
that cannot be a fact stops the reading with its file and number: half a file is no import.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from coordinator.streams.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.file_parquet import parquet_rows
from coordinator.streams.sources.file_rows import Row, names_of, record_of_row, row_of_csv, row_of_json

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".parquet")
DIMENSIONS = ("source", "subject", "kind", "granularity")
LINE_CHARS_MAX = 1_000_000


def given_files(path: Path) -> list[Path]:
    """The files to read, in order of their names. Raises OperatorError when there are none."""
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise OperatorError(f"{path}: only {', '.join(SUFFIXES)} can be read")
        return [path]
    if not path.is_dir():
        raise OperatorError(f"{path}: there is no such file or folder")
    found = sorted(one for one in path.rglob("*") if one.is_file() and one.name.endswith(SUFFIXES))
    if not found:
        raise OperatorError(f"{path}: no file in it ends in {', '.join(SUFFIXES)}")
    return found


def given_records(path: Path, defaults: Mapping[str, str]) -> Iterator[FeedRecord]:
    """The records of one file in its order. Raises OperatorError with the file and the row that is wrong."""
    known = {**defaults, **_from_folders(path)}
    for number, row in _rows(path):
        fields = {name: row.get(name) or known.get(name, "") for name in DIMENSIONS}
        fields["subject"] = row.get("subject") or row.get("symbol") or fields["subject"]
        lacking = [name for name, text in fields.items() if not text]
        if lacking:
            raise OperatorError(
                f"{path} says no {', '.join(lacking)}: give {' '.join(f'--{name}' for name in lacking)}"
            )
        try:
            yield record_of_row(row, Subscription(**fields))
        except ValueError as error:
            raise OperatorError(f"{path} row {number}: {error}") from None


def _from_folders(path: Path) -> dict[str, str]:
    parts = dict(part.split("=", 1) for part in path.absolute().parent.parts if "=" in part)
    return {name: unquote(parts[name]) for name in DIMENSIONS if name in parts}


def _opened(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    if path.name.endswith(".parquet"):
        yield from enumerate(parquet_rows(path), start=1)
        return
    names: tuple[str, ...] = ()
    number = 0
    try:
        with _opened(path) as lines:
            while line := lines.readline(LINE_CHARS_MAX):
                number += 1
                if not line.strip():
                    continue
                if path.name.endswith(".jsonl"):
                    yield number, row_of_json(line)
                elif not names:
                    names = names_of(line)
                else:
                    yield number, row_of_csv(line, names)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise OperatorError(f"{path} row {number}: {error}") from None
