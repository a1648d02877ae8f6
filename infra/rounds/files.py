"""Reads what an operator or a participant hands in: JSON, JSON lines, CSV or Parquet, from a file or a body.

Bounded before it is decoded, and strict: a name that stands twice in an object, a number that is not finite, a row that
is cut short are refused with their place. Nothing is guessed beyond the format, which the bytes show.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import msgspec

from coordinator.streams.feeds.posted_json import PostedJsonError, posted_json
from coordinator.streams.log.errors import OperatorError

BYTES_MAX = 64 * 1024 * 1024
UNPACKED_BYTES_MAX = 512 * 1024 * 1024
ROWS_MAX = 100_000
CELLS_MAX = 20_000_000
COLUMNS_MAX = 10_000
TEXT_COLUMNS = frozenset({"id", "question_id", "round_id", "model_id"})
"""Columns of a CSV whose cells stay text, also where they look like numbers."""


_OTHER_FORMATS = {
    b"\x1f\x8b": "a .gz file: unpack it",
    b"PK\x03\x04": "a .zip or .xlsx file: unpack it, or save the sheet as CSV",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
"""The first bytes -> the format, and what to do."""
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class FileRefusedError(OperatorError):
    """What was handed in cannot be read; the message says where and why."""


class Table(msgspec.Struct, frozen=True, dict=True):
    """Rows under named columns; a cell is a number, a text, a truth value or None."""

    columns: list[str]
    row_count: int
    read_rows: Callable[[], list[list[Any]]]
    parquet: bytes = b""
    """The file that it was read of, where that is Parquet."""

    @cached_property
    def rows(self) -> list[list[Any]]:
        """The cells, computed on demand: a table that is kept beside the log has millions of cells, and none are
        needed.
        """
        return self.read_rows()

    def objects(self) -> list[dict[str, Any]]:
        """A dict for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def table_of(columns: list[str], rows: list[list[Any]]) -> Table:
    """A table whose rows are there."""
    return Table(columns, len(rows), lambda: rows)


def read_content(content: bytes, name: str = "") -> Any:
    """Plain JSON, a list of it for JSON lines, or a `Table`. `name` is the file's name, which messages show.

    Raises FileRefusedError.
    """
    where = name or "the body"
    for start, what in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise FileRefusedError(f"{where} is {what}")
    if len(content) > BYTES_MAX:
        raise FileRefusedError(f"{where} has {len(content):,} bytes; the limit is {BYTES_MAX:,}")
    if content[:4] == b"PAR1":
        return _parquet(content, where)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileRefusedError(f"{where} is not UTF-8 text at byte {error.start}, and no Parquet") from error
    if not text.strip():
        raise FileRefusedError(f"{where} is empty")
    if text.lstrip()[0] not in "{[":
        return _csv(text, where)
    if name.endswith((".jsonl", ".ndjson")) or _is_lines(text):
        return [
            _json(line, f"{where}, line {number}")
            for number, line in enumerate(text.split("\n"), 1)  # a text in JSON may hold other ends of lines
            if line.strip()
        ]
    return _json(text, where)


def _is_lines(text: str) -> bool:
    """Whether it is JSON lines: the first line is a whole object, and another line follows."""
    first, _, rest = text.strip().partition("\n")
    if not rest.strip() or not first.startswith("{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: str, where: str) -> Any:
    def no_number(name: str) -> Any:
        raise FileRefusedError(f"{where}: {name} is not a JSON number")

    try:
        return posted_json(text, no_number)
    except PostedJsonError as error:
        raise FileRefusedError(f"{where}: {error}") from error
    except json.JSONDecodeError as error:
        cut = " (is it cut short?)" if error.pos >= len(text.rstrip()) - 1 else ""
        raise FileRefusedError(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}{cut}"
        ) from error
    except RecursionError as error:
        raise FileRefusedError(f"{where} is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise FileRefusedError(f"{where} is not JSON: {error}") from error


def _csv(text: str, where: str) -> Table:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(cells for cells in reader if cells)
        if len(names) == 1 and (separator := next(filter(names[0].count, _OTHER_SEPARATORS), "")):
            raise FileRefusedError(
                f"{where}: its columns are separated by {_OTHER_SEPARATORS[separator]}; a CSV has commas, and a point "
                "in 0.5"
            )
        columns = _checked_columns(names, where)
        rows: list[list[Any]] = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise FileRefusedError(
                    f"{where}, line {reader.line_num}: {len(cells)} cells under {len(columns)} columns"
                )
            _bounded(len(rows) + 1, len(columns), where)
            rows.append([_cell(name, cell) for name, cell in zip(columns, cells, strict=True)])
    except csv.Error as error:
        raise FileRefusedError(f"{where}, line {reader.line_num}: {error} (is it cut short?)") from error
    return table_of(columns, rows)


def _cell(column: str, text: str) -> Any:
    if column in TEXT_COLUMNS:
        return text
    if not text.strip():
        return None
    if "_" in text:  # Python reads 2_1 as 21
        return text
    try:
        number = int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text
    if isinstance(number, float) and not math.isfinite(number):
        return None if math.isnan(number) else text
    return number


def _parquet(content: bytes, where: str) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - 100 ms, and most files are none
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        names = list(file.schema_arrow.names)
        _bounded(file.metadata.num_rows, len(names), where)
        # Only the size of whole groups is read, because a damaged description of a column crashes pyarrow.
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > UNPACKED_BYTES_MAX:
            raise FileRefusedError(f"{where} unpacks to more than {UNPACKED_BYTES_MAX:,} bytes")
        table = file.read()
        table.validate(full=True)  # a damaged index may point outside of its dictionary
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileRefusedError(
            f"{where} is not a complete Parquet file: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
        ) from error
    columns = _checked_columns(names, where)
    for name, column in zip(columns, table.columns, strict=True):
        if not _holds_plain_cells(column.type):
            _check_cells(column.to_pylist(), name, where)
    return Table(columns, table.num_rows, lambda: _rows_of(table), content)


def _rows_of(table: Any) -> list[list[Any]]:
    """The cells of a table of pyarrow; a number that is not finite is None."""
    cells = [
        [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in column.to_pylist()]
        for column in table.columns
    ]
    return [list(row) for row in zip(*cells, strict=True)]


def _holds_plain_cells(kind: Any) -> bool:
    """Whether every cell of a column of this type of pyarrow is a number, a text, a truth value or None."""
    import pyarrow.types as pt  # noqa: PLC0415

    if pt.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_such(kind)
        for is_such in (
            pt.is_float32, pt.is_float64, pt.is_integer, pt.is_boolean, pt.is_null, pt.is_string, pt.is_large_string
        )
    )  # fmt: skip


def _check_cells(cells: list[Any], column: str, where: str) -> None:
    for number, cell in enumerate(cells, 1):
        if cell is not None and not isinstance(cell, str | int | float | bool):
            raise FileRefusedError(
                f"{where}, row {number}: a {type(cell).__name__} in column {column!r}, neither number nor text"
            )


def _checked_columns(names: Iterable[str], where: str) -> list[str]:
    columns = [name.strip() for name in names]
    if len(columns) > COLUMNS_MAX:
        raise FileRefusedError(f"{where} has {len(columns):,} columns; the limit is {COLUMNS_MAX:,}")
    if not all(columns) or len(set(columns)) != len(columns):
        raise FileRefusedError(f"{where}: a column has no name, or two have the same")
    return columns


def _bounded(rows: int, columns: int, where: str) -> None:
    if rows > ROWS_MAX or rows * columns > CELLS_MAX:
        raise FileRefusedError(
            f"{where} has more than {ROWS_MAX:,} rows, or than {CELLS_MAX:,} cells: nothing of it was taken"
        )
