"""Log files of bounded size for what child processes print: the library's rotation, over bytes.

Holds two files at most: `path`, and `path`.1 with what came before it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path


class RotatedLog(RotatingFileHandler):
    """Appends bytes to a file of at most `bytes_max`, which then becomes `path`.1 in place of the older one.

    Its folder is made. A disk without room loses what is written meanwhile, and raises nothing: the process whose
    output this is continues. Raises OSError when the file cannot be opened at first.
    """

    terminator = ""

    def __init__(self, path: Path, bytes_max: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # latin-1 has one character for each byte, so that the file holds the very bytes that were given.
        super().__init__(path, maxBytes=bytes_max, backupCount=1, encoding="latin-1")
        if path.stat().st_size >= bytes_max:
            self.doRollover()

    def write(self, data: bytes) -> None:
        """Appends. A piece longer than `bytes_max` is cut to its end."""
        # The library counts one byte more than a record has, and rolls over at the bound, not above it.
        end = data[-max(self.maxBytes - 2, 1) :]
        self.emit(makeLogRecord({"msg": end.decode("latin-1")}))

    def handleError(self, record: LogRecord) -> None:  # noqa: ARG002, N802 - the library's name
        """Called by the library where a record could not be written."""
        if (error := sys.exception()) is not None and not isinstance(error, OSError):
            raise error

    def close(self) -> None:
        """Close the file. What the disk had no room for is lost."""
        with suppress(OSError):
            super().close()


def read_end(path: Path, bytes_max: int) -> str:
    """The last `bytes_max` bytes of a log, as text; empty if there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - bytes_max))
            return file.read(bytes_max).decode(errors="replace")
    except FileNotFoundError:
        return ""
