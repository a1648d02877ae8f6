"""A table as a model gets it: a pandas DataFrame, from a whole Parquet file in memory or on disk.

pandas is loaded with the first one: with it a process has 80 MB more, and most models get no table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

TABLE = "table"
"""The keyword by which a model gets a table."""


class BadTableError(Exception):
    """It cannot be read; the text says why."""


def frame_of(parquet: bytes | str) -> Any:
    """The DataFrame of a Parquet file: its bytes, or its path, which is mapped. Raises BadTableError."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        # One thread, and no copy of columns side by side: a model has a ceiling of memory.
        source = pa.memory_map(parquet) if isinstance(parquet, str) else pa.BufferReader(parquet)
        read = pq.read_table(source, use_threads=False)
        frame = read.to_pandas(use_threads=False)
        del read
        pa.default_memory_pool().release_unused()
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise BadTableError(f"the table cannot be read: {error}") from error
    return frame


def takes_table(method: Callable[..., Any]) -> bool:
    """Whether a method has a parameter for a table."""
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
    return TABLE in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
