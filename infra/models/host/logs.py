"""A log file with a cap: what a model prints must not fill the disk.

Reads bytes from a child's stdout and stderr, keeps at most two files of half the cap each.
"""

from __future__ import annotations

from pathlib import Path


def read_log(path: Path, bytes_max: int) -> str:
    """The end of a capped log, at most `bytes_max` bytes; empty when there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - bytes_max))
            return file.read(bytes_max).decode(errors="replace")
    except FileNotFoundError:
        return ""


class CappedLog:
    """Append-only bytes; at half the cap the file becomes `<name>.1` (replacing the older one)."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path, self._half = path, max(bytes_max // 2, 1)
        self._file = path.open("ab")

    def write(self, data: bytes) -> None:
        """Append; of one piece longer than half the cap only its end is kept."""
        if self._file.tell() + len(data) > self._half:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("wb")
        self._file.write(data[-self._half :])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
