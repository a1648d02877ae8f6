"""The file that a copy of the topics is: a gzip stream of length-prefixed MessagePack. No broker is needed to read it.

A head, the records topic by topic, the blobs that they name, a tail with their number and sha256. `copy.py` writes and
restores it.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import msgspec

from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.ports import Blobs

FORMAT = "coordinator-log/3"
FORMATS_READ = ("coordinator-log/2", FORMAT)
"""The second has no blobs."""
RECORD_BYTES_MAX = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")
DAMAGED = (
    *(EOFError, OSError, zlib.error, zipfile.BadZipFile, struct.error),
    *(msgspec.DecodeError, UnicodeDecodeError),
)
"""What a stream that was cut or altered anywhere makes of its reading."""


class Head(msgspec.Struct, frozen=True, tag="head"):
    """Which log the file is a copy of. `ends`: topic -> offset after its last copied record."""

    format: str
    crunch_id: str
    birth_id: str
    ends: dict[str, int]


class Copied(msgspec.Struct, frozen=True, tag="record"):
    """One record of a topic, as it is on the broker."""

    topic: str
    offset: int
    timestamp_ms: int
    value: bytes | None


class CopiedBlob(msgspec.Struct, frozen=True, tag="blob"):
    """A large table or answer that the records name; its name is its SHA-256."""

    content: bytes


class Tail(msgspec.Struct, frozen=True, tag="tail"):
    """The end of the file: the number of records and blobs before it, and the sha256 (hex) of their encoded bytes."""

    records: int
    sha256: str
    blobs: int = 0
    """How many of them are blobs."""
    lost: list[str] = []
    """The names of the blobs that were lost when the copy was made: it lacks them."""


Entry = Head | Copied | CopiedBlob | Tail
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Entry)


class ImpossibleLengthError(EOFError):
    """A piece says that it is longer than any record can be."""


def framed(piece: bytes) -> bytes:
    """A piece as it is written: its length, then its bytes."""
    return LENGTH.pack(len(piece)) + piece


def read_framed(source: IO[bytes]) -> Iterator[bytes]:
    """The pieces of a gzip stream, each as `framed` has made it. Raises ImpossibleLengthError, and of a stream that was
    cut or damaged what is in DAMAGED.
    """
    with gzip.GzipFile(fileobj=source, mode="rb") as file:
        while prefix := file.read(LENGTH.size):
            (length,) = LENGTH.unpack(prefix)
            if length > RECORD_BYTES_MAX:
                raise ImpossibleLengthError("a record of impossible length")
            yield file.read(length)


def read_entries(source: IO[bytes]) -> Iterator[Entry]:
    """What the file holds, in order. Raises OperatorError (no copy), LogError (cut or damaged)."""
    try:
        for piece in read_framed(source):
            yield _decoder.decode(piece)
    except ImpossibleLengthError as error:
        raise LogError("the backup is damaged: a record of impossible length") from error
    except gzip.BadGzipFile as error:
        raise OperatorError("this is not a backup of topics") from error
    except DAMAGED as error:
        raise LogError(f"the backup was cut or damaged: {error}") from error


def read_topics(path: Path, topics: Collection[str], blobs: Blobs | None = None) -> MemoryLog:
    """Some topics of a copy, in memory; its blobs are put into `blobs`.

    Raises OperatorError (no copy), LogError (cut, damaged or altered).
    """
    log = MemoryLog(dict.fromkeys(topics, ()), blobs)
    count, digest = 0, hashlib.sha256()
    try:
        with path.open("rb") as file:
            entries = read_entries(file)
            head = next(entries, None)
            if not isinstance(head, Head) or head.format not in FORMATS_READ:
                raise OperatorError(f"{path} is not a backup of topics")
            for entry in entries:
                if isinstance(entry, Tail):
                    if (entry.records, entry.sha256) != (count, digest.hexdigest()):
                        raise LogError(f"{path} was altered: its records are not those that were copied")
                    return log
                if isinstance(entry, Head):
                    raise LogError(f"{path} is damaged: it contains a second head")
                digest.update(_encode(entry))
                count += 1
                if isinstance(entry, CopiedBlob):
                    if blobs is not None:
                        blobs.put(entry.content)
                elif entry.topic in topics:
                    log.append(entry.topic, entry.value or b"")
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}") from error
    raise LogError(f"{path} was cut: its end is missing")
