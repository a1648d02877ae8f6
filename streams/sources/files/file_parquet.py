"""The rows of a Parquet file as text.

Reads with pyarrow, batch by batch, and only columns of single values. Times with a zone become numbers of milliseconds;
times without a zone are refused as in text files, because a guess would shift every record by hours. Text stays
dictionary-encoded, so that a column with one repeated long text needs the memory of that text once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coordinator.streams.log.errors import OperatorError

_BATCH_ROWS = 8_192
_CELL_BYTES_MAX = 1_000
_COLUMN_BYTES_FREE = 64 << 20


def parquet_rows(path: Path) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(names, cells) of each row, in order; an empty cell is "". Raises OperatorError for a fault of the file."""
    try:
        texts = [field.name for field in pq.read_schema(path) if _is_text(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as file:
            names = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            if file.metadata.num_rows == 0:
                raise OperatorError(f"{path}: the file holds no rows")
            _refuse_bomb(path, file.metadata)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
                batch.validate(full=True)  # a damaged index may point outside of the dictionary
                columns = [_texts(path, name, batch.column(name)) for name in names]
                for cells in zip(*columns, strict=True):
                    yield tuple(names), list(cells)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise OperatorError(f"{path}: cannot be read as Parquet: {first_line}") from error


def _is_text(kind: Any) -> bool:
    return any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _refuse_bomb(path: Path, metadata: Any) -> None:
    """Raises OperatorError where a group of rows unpacks to more than its rows can hold.

    Only the group as a whole is asked: a damaged description of a column ends the process within pyarrow, from where no
    exception comes back.
    """
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        bytes_max = group.num_columns * (_COLUMN_BYTES_FREE + _CELL_BYTES_MAX * group.num_rows)
        if group.total_byte_size > bytes_max:
            raise OperatorError(
                f"{path}: {group.num_rows:,} rows unpack to {group.total_byte_size:,} bytes, which no file of records "
                "does"
            )


def _texts(path: Path, name: str, column: Any) -> list[str]:
    """A column as text. The text of a float is its shortest decimal, which is what was quoted."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        words = [_text(path, name, word) for word in column.dictionary.to_pylist()]
        return ["" if at is None else words[at] for at in column.indices.to_pylist()]
    if pa.types.is_timestamp(kind):
        if kind.tz is None:  # if it is the time column, it is refused later; in other columns it does no harm
            return ["" if value is None else str(value) for value in column.cast(pa.string()).to_pylist()]
        column = (
            pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
        )
    elif pa.types.is_float64(kind):
        return ["" if value is None else repr(value) for value in column.to_pylist()]
    return ["" if value is None else str(value) for value in column.cast(pa.string()).to_pylist()]


def _text(path: Path, name: str, word: Any) -> str:
    if word is None:
        return ""
    text = word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word)
    if len(text) > _CELL_BYTES_MAX:
        raise OperatorError(
            f"{path}: column {name} has a cell of {len(text):,} characters, which no record has"
        )
    return text
