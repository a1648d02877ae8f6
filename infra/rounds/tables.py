"""Tables that are too large for the log: kept beside it as Parquet, and named in the question.

A Parquet file is kept as it is, byte for byte, so its hash is that of the operator's file. A CSV becomes Parquet.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import msgspec

from coordinator.infra.rounds.files import FileRefusedError, Table
from coordinator.streams.events import Blob
from coordinator.streams.ports import TABLE_BYTES_MAX

MEDIA_TYPE = "application/vnd.apache.parquet"


class TableBlob(msgspec.Struct, frozen=True):
    """A table as a blob. `put` its content into the store before a question names it."""

    blob: Blob
    content: bytes

    def payload(self) -> dict[str, Any]:
        """What the question's payload says about the table. Models also get the table itself, as the keyword
        `table`.
        """
        blob = self.blob
        return {
            "table": {
                "sha256": blob.sha256,
                "bytes": blob.bytes,
                "rows": blob.rows,
                "columns": len(blob.columns),
            }
        }


def kept(table: Table) -> TableBlob:
    """The table as a blob. Raises FileRefusedError for one that Parquet cannot hold or a model's host does not take."""
    import pyarrow as pa  # noqa: PLC0415 - 100 ms, and most tables are small
    import pyarrow.parquet as pq  # noqa: PLC0415

    content = table.parquet or _written(table)
    if len(content) > TABLE_BYTES_MAX:
        raise FileRefusedError(
            f"the table has {len(content):,} bytes as Parquet; the limit is {TABLE_BYTES_MAX:,}: "
            "write numbers as float32, or compress it (zstd)"
        )
    schema = pq.read_schema(pa.BufferReader(content))
    blob = Blob(
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        media_type=MEDIA_TYPE,
        columns=[(field.name, str(field.type)) for field in schema],
        rows=table.row_count,
    )
    return TableBlob(blob, content)


def _written(table: Table) -> bytes:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    arrays = []
    for place, name in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        try:
            column = pa.array(cells)
        except (pa.ArrowException, OverflowError) as error:
            raise FileRefusedError(
                f"column {name!r} has cells of several types, or a number of more than 64 bits: {error}"
            ) from error
        # A column without a cell: missing numbers, as a model expects them.
        arrays.append(column.cast(pa.float64()) if pa.types.is_null(column.type) else column)
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, names=table.columns), sink, compression="zstd")
    return sink.getvalue()
