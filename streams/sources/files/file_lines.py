"""The lines of an operator's text file: plain, gzipped, or the only file in a zip, with bounds.

Reads bytes, yields numbered lines of text. The first bytes decide what a file is, because its name may be wrong. What
it unpacks to is bounded: a line has at most LINE_CHARS_MAX characters, and a file that grows by more than RATIO_MAX is
refused. A fault of the file as a whole raises an OperatorError, one line that names the file.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from coordinator.streams.log.errors import OperatorError

LINE_CHARS_MAX = 65_536
RATIO_MAX = 200
"""Candles are packed to a fifth or a tenth of their size, a zip bomb to a thousandth."""
UNPACKED_BYTES_FREE = 8 << 20

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PACKED_OTHERWISE = {b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError)


class DamagedError(OperatorError):
    """A packed file cannot be unpacked completely."""


def is_parquet(path: Path) -> bool:
    """Whether the first bytes are those of Parquet. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of all lines that are not blank. Raises OperatorError."""
    number = 0
    try:
        with _unpacked(path) as (stream, packed_as):
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="backslashreplace")
            try:
                while line := text.readline(LINE_CHARS_MAX):
                    number += 1
                    if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
                        raise OperatorError(
                            f"{path}, line {number}: longer than {LINE_CHARS_MAX} characters, which no record is"
                        )
                    if number == 1 and ("\0" in line[:8] or line.startswith(("\\xff\\xfe", "\\xfe\\xff"))):
                        raise OperatorError(f"{path}: this is UTF-16 or no text; save it as UTF-8")
                    if line := line.strip("\r\n \0"):
                        yield number, line
            except EOFError:
                raise DamagedError(
                    f"{path}, line {number + 1}: the {packed_as} data ends in the middle; the file is truncated"
                ) from None
            except _BROKEN as error:
                raise DamagedError(
                    f"{path}, line {number + 1}: the {packed_as} data is broken: {error}"
                ) from error
            finally:
                text.detach()
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror or error}") from error
    if number == 0:
        raise OperatorError(f"{path}: the file is empty")


def damage_of(path: Path) -> DamagedError | None:
    """The damage of an archive, or None.

    The checksum is at the archive's end: in a damaged one, wrong names and numbers may be read long before that.
    """
    try:
        for _ in numbered_lines(path):
            pass
    except DamagedError as damage:
        return damage
    except OperatorError:
        return None  # the content is wrong, but the archive is not damaged
    return None


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """(the unpacked bytes, how they were packed)."""
    name = path.name.lower()
    with path.open("rb") as file:
        size, mark = path.stat().st_size, file.read(6)
        file.seek(0)
        if mark.startswith(_UTF16_MARKS):
            raise OperatorError(
                f"{path}: this is UTF-16 (Windows PowerShell's > writes it); save it as UTF-8"
            )
        for head, packer in _PACKED_OTHERWISE.items():
            if mark.startswith(head):
                raise OperatorError(
                    f"{path}: it is packed with {packer}; unpack it, or pack it with gzip or zip"
                )
        if mark.startswith(b"\x1f\x8b") or (name.endswith(".gz") and size):
            with gzip.open(file, "rb") as packed:
                yield _bounded(path, packed, size), "gzip"
        elif mark.startswith(b"PK") or (name.endswith(".zip") and size):
            yield from _member(path, file)
        else:
            yield file, ""


def _member(path: Path, file: BinaryIO) -> Iterator[tuple[BinaryIO, str]]:
    try:
        archive = zipfile.ZipFile(file)
    except (*_BROKEN, ValueError, OverflowError) as error:
        raise DamagedError(f"{path}: the zip data is broken: {error}") from error
    with archive:
        members = [
            entry
            for entry in archive.infolist()
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
        ]
        if any(entry.filename == "xl/workbook.xml" for entry in members):
            raise OperatorError(f"{path}: this is a spreadsheet; save it as CSV")
        if len(members) != 1:
            raise OperatorError(
                f"{path}: it holds {len(members)} files instead of one; unpack it and give the folder"
            )
        member = members[0]
        if not member.filename.lower().endswith((".csv", ".tsv", ".txt", ".jsonl", ".ndjson")):
            raise OperatorError(f"{path}: its content, {member.filename[:80]}, is not text; unpack it")
        try:
            with archive.open(member) as packed:
                yield _bounded(path, packed, path.stat().st_size), "zip"
        except (*_BROKEN, ValueError) as error:
            raise DamagedError(f"{path}: the zip data is broken: {error}") from error
        except RuntimeError as error:  # a password, or a way of packing that this Python cannot unpack
            raise OperatorError(f"{path}: {member.filename[:80]} cannot be unpacked: {error}") from error


def _bounded(path: Path, packed: Any, packed_bytes: int) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Bounded(path, packed, packed_bytes)))


class _Bounded(io.RawIOBase):
    """The unpacked bytes, up to a bound. Raises OperatorError beyond it."""

    def __init__(self, path: Path, packed: Any, packed_bytes: int) -> None:
        self._path, self._packed = path, packed
        self._left = max(UNPACKED_BYTES_FREE, RATIO_MAX * packed_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece: bytes = self._packed.read1(len(buffer))
        self._left -= len(piece)
        if self._left < 0:
            raise OperatorError(
                f"{self._path}: it unpacks to more than {RATIO_MAX} times its size, which no file of records does"
            )
        buffer[: len(piece)] = piece
        return len(piece)
