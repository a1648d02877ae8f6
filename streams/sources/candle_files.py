"""Rows out of a candle file, as text: CSV, gzipped CSV, Parquet.

Reads a file, gives `RawRow`s in the file's order with a bounded memory. Knows nothing of what a candle must
be. Whatever is wrong with the file as a whole is an OperatorError of one line that names the file and, where
there is one, the line; a gzip file is read through once before its first row is given, so that a
truncated one is refused before anything was done with it.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from coordinator.streams.errors import OperatorError
from coordinator.streams.sources.candle_columns import (
    Columns,
    RawRow,
    columns_by_name,
    columns_without_header,
    looks_like_data,
)

LINE_CHARS_MAX = 65_536
_EXTENSIONS = ".csv, .csv.gz, .parquet"


def raw_rows(path: Path) -> Iterator[RawRow]:
    """Rows of the file in order, by its extension. Raises OperatorError for what is wrong with the file."""
    name = path.name.lower()
    try:
        if not path.is_file():
            raise OperatorError(f"{path}: there is no such file")
        if path.stat().st_size == 0:
            raise OperatorError(f"{path}: the file is empty")
        if name.endswith(".csv.gz"):
            _refuse_broken_gzip(path)
            with gzip.open(path, "rt", encoding="utf-8-sig", errors="backslashreplace") as lines:
                yield from _text_rows(path, lines)
        elif name.endswith(".csv"):
            with path.open("rt", encoding="utf-8-sig", errors="backslashreplace") as lines:
                yield from _text_rows(path, lines)
        elif name.endswith(".parquet"):
            yield from _parquet_rows(path)
        else:
            raise OperatorError(f"{path}: unknown kind of file; a candle file ends in {_EXTENSIONS}")
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror or error}") from error


def _refuse_broken_gzip(path: Path) -> None:
    lines = 0
    try:
        with gzip.open(path, "rb") as stream:
            while piece := stream.read1(LINE_CHARS_MAX):
                lines += piece.count(b"\n")
    except EOFError:
        raise OperatorError(
            f"{path}, line {lines + 1}: the gzip data ends in the middle; the file is truncated"
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise OperatorError(f"{path}, line {lines + 1}: the gzip data is broken: {error}") from error


def _text_rows(path: Path, stream: TextIO) -> Iterator[RawRow]:
    lines = _numbered_lines(path, stream)
    number, first = next(lines, (0, ""))
    if number == 0:
        raise OperatorError(f"{path}: the file is empty")
    separator = max(",;\t", key=first.count)
    header = _cells(first, separator)
    try:
        headless = header is not None and looks_like_data(header)
        columns = columns_without_header(header or []) if headless else columns_by_name(header or [first])
    except ValueError as error:
        raise OperatorError(f"{path}, line {number}: {error}") from None
    if headless:
        yield _text_row(number, first, separator, columns)
    for number, line in lines:
        yield _text_row(number, line, separator, columns)


def _numbered_lines(path: Path, stream: TextIO) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, from 1, without their end."""
    number = 0
    while line := stream.readline(LINE_CHARS_MAX):
        number += 1
        if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
            raise OperatorError(f"{path}, line {number}: longer than {LINE_CHARS_MAX} characters; no candle")
        if line := line.strip("\r\n \0"):
            yield number, line


def _cells(line: str, separator: str) -> list[str] | None:
    """Cells of one line; None if the quotes do not close.

    Each line is cut by itself, so that a stray quote costs its own row and not the rest of the file.
    """
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    try:
        return [cell.strip() for cell in next(csv.reader((line,), delimiter=separator, strict=True))]
    except csv.Error:
        return None


def _text_row(number: int, line: str, separator: str, columns: Columns) -> RawRow:
    cells = _cells(line, separator)
    if cells is None:
        return RawRow(number, line, fault="its quotes do not close")
    needed = max(columns.time, *columns.values) + 1
    if len(cells) < needed:
        return RawRow(number, line, fault=f"it has {len(cells)} columns, {needed} are needed")
    values = tuple([cells[position] for position in columns.values])
    return RawRow(number, line, cells[columns.time], values, columns.unit)


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    try:
        # Imported late: a large library that no other kind of file needs.
        from coordinator.streams.sources.candle_parquet import parquet_rows  # noqa: PLC0415
    except ImportError as error:
        raise OperatorError(f"{path}: reading Parquet needs pyarrow ({error}); or give a CSV") from error
    yield from parquet_rows(path)
