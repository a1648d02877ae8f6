"""Rows out of a Parquet file of candles, as text.

Reads with pyarrow, batch by batch; gives `RawRow`s numbered from 1. Times with a zone become numbers of the
column's own unit; times without one are refused, because a guess would shift every candle by hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.streams.errors import OperatorError
from coordinator.streams.sources.candle_columns import RawRow, TimeUnit, columns_by_name

_BATCH_ROWS = 8_192


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Rows of the file in order. Raises OperatorError for what is wrong with the file."""
    try:
        with pq.ParquetFile(path) as file:
            yield from _rows(path, file)
    except pa.ArrowException as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise OperatorError(f"{path}: cannot be read as Parquet: {first_line}") from error


def _rows(path: Path, file: Any) -> Iterator[RawRow]:
    schema = file.schema_arrow
    try:
        columns = columns_by_name(schema.names)
    except ValueError as error:
        raise OperatorError(f"{path}: {error}") from None
    names = [schema.names[position] for position in (columns.time, *columns.values)]
    unit = _time_unit(path, names[0], schema.field(names[0]).type) or columns.unit
    if file.metadata.num_rows == 0:
        raise OperatorError(f"{path}: the file holds no rows")
    number = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
        texts = [_texts(batch.column(name)) for name in names]
        for time, *values in zip(*texts, strict=True):
            number += 1
            yield RawRow(number, ",".join([time, *values]), time, tuple(values), unit)


def _time_unit(path: Path, name: str, kind: Any) -> TimeUnit | None:
    if not pa.types.is_timestamp(kind):
        return None
    if kind.tz is None:
        raise OperatorError(f"{path}: the times in column {name} have no zone; store them with zone UTC")
    return TimeUnit(kind.unit)


def _texts(column: Any) -> list[str]:
    """A column as text. A float's text is its shortest decimal, which is what was once quoted."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_float64(column.type):
        return ["" if value is None else repr(value) for value in column.to_pylist()]
    return ["" if value is None else str(value) for value in column.cast(pa.string()).to_pylist()]
