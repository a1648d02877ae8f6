"""Rows of a Parquet file of any records, as text.

Reads with pyarrow, batch by batch. Times with a zone become numbers of milliseconds; times without one are
refused, because a guess would shift every record by hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coordinator.streams.errors import OperatorError

_BATCH_ROWS = 8_192


def parquet_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows in order, without their empty cells. Raises OperatorError, FileNotFoundError."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                names = [name.lower() for name in batch.schema.names]
                columns = [_texts(path, name, batch.column(at)) for at, name in enumerate(names)]
                for cells in zip(*columns, strict=True):
                    yield {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    except pa.ArrowException as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise OperatorError(f"{path}: cannot be read as Parquet: {first_line}") from error


def _texts(path: Path, name: str, column: Any) -> list[str]:
    """A column as text. A float's text is its shortest decimal, which is what was once quoted."""
    if pa.types.is_nested(column.type):
        return [""] * len(column)
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise OperatorError(f"{path}: the times in column {name} have no zone; store them with zone UTC")
        column = (
            pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
        )
    if pa.types.is_floating(column.type):
        return ["" if value is None else repr(value) for value in column.to_pylist()]
    return ["" if value is None else str(value) for value in column.cast(pa.string()).to_pylist()]
