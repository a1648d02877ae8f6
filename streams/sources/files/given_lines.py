"""The lines of a text file that somebody gives: plain, gzipped or alone in a zip, with bounds.

Reads bytes, gives numbered lines of text. What a file is, its first bytes say, since names lie. Nothing is taken for
granted about what it unpacks to: a line is at most LINE_CHARS_MAX long, and what grows by more than RATIO_MAX is no
file of records. Whatever is wrong with the file as a whole is an OperatorError of one line that names it.
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
"""Candles shrink to a fifth or a tenth; what a bomb is made of, to a thousandth."""
UNPACKED_BYTES_FREE = 8 << 20

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PACKED_OTHERWISE = {b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError)


class DamagedError(OperatorError):
    """What was packed does not come out whole."""


def is_parquet(path: Path) -> bool:
    """Do the first bytes say Parquet? Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, from 1, without their end. Raises OperatorError."""
    number = 0
    try:
        with _unpacked(path) as (stream, packed_as):
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="backslashreplace")
            try:
                while line := text.readline(LINE_CHARS_MAX):
                    number += 1
                    if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
                        raise OperatorError(
                            f"{path}, line {number}: longer than {LINE_CHARS_MAX} characters; no record is"
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
    """What an archive is damaged by, if it is one.

    Its sum stands at its end: a damaged one may be read as odd names and numbers long before it.
    """
    try:
        for _ in numbered_lines(path):
            pass
    except DamagedError as damage:
        return damage
    except OperatorError:
        return None  # wrong, but as it was packed
    return None


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """(the bytes, how they were packed)."""
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
            one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")
        ]
        if any(one.filename == "xl/workbook.xml" for one in members):
            raise OperatorError(f"{path}: this is a spreadsheet; save it as CSV")
        if len(members) != 1:
            raise OperatorError(
                f"{path}: {len(members)} files are in it, one is needed; unpack it and name the folder"
            )
        member = members[0]
        if not member.filename.lower().endswith((".csv", ".tsv", ".txt", ".jsonl", ".ndjson")):
            raise OperatorError(f"{path}: what is in it, {member.filename[:80]}, is no text; unpack it")
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
    """What is unpacked, as long as it is no bomb. Raises OperatorError."""

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
