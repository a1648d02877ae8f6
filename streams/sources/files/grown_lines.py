"""The lines of a growing file, each once it is complete, through truncation and rotation.

Call `GrownLines.read` again and again; it never waits. A line is complete when its end has been written. After a
rotation (another file is at the path), the rest of the old file is read, then the new file from its start. A file that
was cut or rewritten in place is read from its start again. Reading lines twice does no harm: a record is recognised by
its identity.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

LINE_BYTES_MAX = 65_536
PIECE_BYTES = 262_144
_MARK_BYTES = 64


class Line(msgspec.Struct, frozen=True):
    """One line without its end. `first`: it is the file's first line. `fault`: why it is not a valid line.

    `number` counts lines from 1. It is 0 if reading began inside the file; then only `start_byte` gives the place.
    """

    text: str
    number: int = 0
    start_byte: int = 0
    first: bool = False
    fault: str = ""


class GrownLines:
    """Follows one path. `at_end`: start after the last complete line that is there now. A line longer than
    `line_bytes_max` is a fault.
    """

    def __init__(self, path: Path, *, at_end: bool = False, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._path = path
        self._line_bytes_max = line_bytes_max
        self._file: int | None = None
        self._at = 0
        self._rest = b""
        self._mark = b""
        self._lines = 0
        self._from_start = True
        self._skipping = False
        if at_end and self._opened():
            self._to_end()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self) -> list[Line]:
        """The complete lines of the next PIECE_BYTES at most; empty if there are none now. Raises OSError."""
        if self._file is None and not self._opened():
            return []
        if self._rewritten():
            lines = self._cut_off("the file was cut while this line was not whole")
            self._restart()
            return lines + self._more()
        lines = self._more()
        if not lines and not self._grows() and self._replaced():
            lines = self._cut_off("the file was replaced while this line was not whole")
            self.close()
        return lines

    def _opened(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._restart()
        return True

    def _restart(self) -> None:
        self._at, self._rest, self._mark, self._lines, self._skipping = 0, b"", b"", 0, False
        self._from_start = True

    def _to_end(self) -> None:
        assert self._file is not None  # noqa: S101 - opened just now
        size = os.fstat(self._file).st_size
        while size > 0:
            start = max(0, size - PIECE_BYTES)
            piece = os.pread(self._file, size - start, start)
            if b"\n" in piece:
                self._at = start + piece.rindex(b"\n") + 1
                self._lines, self._from_start = 1, False
                self._mark = os.pread(self._file, min(_MARK_BYTES, self._at), max(0, self._at - _MARK_BYTES))
                return
            size = start

    def _grows(self) -> bool:
        return self._file is not None and os.fstat(self._file).st_size > self._at

    def _replaced(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        assert self._file is not None  # noqa: S101 - read() opened it
        then = os.fstat(self._file)
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)

    def _rewritten(self) -> bool:
        """Whether the bytes before our position are no longer those that were read."""
        assert self._file is not None  # noqa: S101 - read() opened it
        if os.fstat(self._file).st_size < self._at:
            return True
        mark = self._mark
        return os.pread(self._file, len(mark), self._at - len(mark)) != mark

    def _more(self) -> list[Line]:
        assert self._file is not None  # noqa: S101 - read() opened it
        piece = os.pread(self._file, PIECE_BYTES, self._at)
        if not piece:
            return []
        self._at += len(piece)
        self._mark = (self._mark + piece)[-_MARK_BYTES:]
        start = self._at - len(piece) - len(self._rest)
        *whole, self._rest = (self._rest + piece).split(b"\n")
        lines: list[Line] = []
        for raw in whole:
            if self._skipping:
                self._skipping = False
            else:
                lines.append(self._line(raw, start))
            start += len(raw) + 1
        if len(self._rest) > self._line_bytes_max:
            if not self._skipping:
                lines.append(self._line(self._rest, start))
            self._rest, self._skipping = b"", True
        return lines

    def _line(self, raw: bytes, start: int) -> Line:
        first = self._lines == 0
        self._lines += 1
        text = (
            raw[: self._line_bytes_max]
            .decode("utf-8-sig" if first else "utf-8", "backslashreplace")
            .strip("\r \0")
        )
        fault = f"longer than {self._line_bytes_max} bytes" if len(raw) > self._line_bytes_max else ""
        return Line(text, self._lines if self._from_start else 0, start, first, fault)

    def _cut_off(self, fault: str) -> list[Line]:
        if not self._rest or self._skipping:
            return []
        text = self._rest.decode("utf-8", "backslashreplace")
        number = self._lines + 1 if self._from_start else 0
        return [Line(text, number, self._at - len(self._rest), fault=fault)]
