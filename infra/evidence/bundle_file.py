"""Reads and writes the file of a bundle: a ZIP archive that any tool can open. It is written atomically.

A file that is read is not trusted: only names of the format are allowed, and nothing is unpacked to a path; sizes are
limited before and while they are read; and a member that is compressed too much is refused.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from coordinator.infra.blobs.content import check_name, checked, name_of
from coordinator.infra.whole_file import writing_whole
from coordinator.streams.events import Blob
from coordinator.streams.evidence.bundle import LOG_TOPICS, BundleRefusedError
from coordinator.streams.evidence.tiles import HASH_TILE_PATH
from coordinator.streams.log.errors import BlobLostError

MEMBERS_MAX = 50_000
"""Most are tiles of 256 hashes: some twelve million appends, whose hashes fit into the memory."""
UNPACKED_BYTES_MAX = 8 * 1024**3
RATIO_MAX = 200
"""Logs are compressed to about a tenth. A member that is compressed far more was made to fill the memory."""
SMALL_BYTES_MAX = 64 * 1024 * 1024
"""The largest size of a member that is read as a whole."""
_NAMES = re.compile(
    r"manifest\.json|note|payout/[a-z0-9_-]{1,40}\.(json|csv|jsonl)"
    rf"|{HASH_TILE_PATH}|log/({'|'.join(LOG_TOPICS)})|blob/[0-9a-f]{{64}}"
)
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@contextmanager
def writing(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive to write into. It appears at `path` once all of it is on disk, or not at all."""
    with (
        writing_whole(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
    ):
        yield archive


def put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member. Its time is fixed, so that the same content always gives the same archive."""
    with adding(archive, name) as member:
        member.write(content)


def put_blob(archive: zipfile.ZipFile, content: bytes) -> None:
    """Add a blob, unless it is there. One that would be compressed as much as a bomb is, is not compressed."""
    name = f"blob/{name_of(content)}"
    if name not in archive.NameToInfo:
        plain = len(zlib.compress(content, 1)) * RATIO_MAX // 2 < len(content)
        with adding(archive, name, zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED) as member:
            member.write(content)


def adding(archive: zipfile.ZipFile, name: str, compress_type: int = zipfile.ZIP_DEFLATED) -> IO[bytes]:
    """Add a member as a file to write in pieces."""
    info = zipfile.ZipInfo(name, _ZIP_EPOCH)
    info.compress_type = compress_type
    return archive.open(info, "w", force_zip64=True)


class BundleFile:
    """A bundle to read. Every method raises BundleRefusedError if the file is cut, altered or hostile."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
            members = self._archive.infolist()
        except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError) as error:
            raise BundleRefusedError(f"{path} is not a bundle: {error}") from None
        if len(members) > MEMBERS_MAX:
            raise BundleRefusedError(f"{len(members)} members, more than {MEMBERS_MAX}")
        self.sizes: dict[str, int] = {}
        for info in members:
            _check(info)
            if info.filename in self.sizes:
                raise BundleRefusedError(f"{info.filename} occurs twice")
            self.sizes[info.filename] = info.file_size
        if sum(self.sizes.values()) > UNPACKED_BYTES_MAX:
            raise BundleRefusedError(f"unpacked it would have more than {UNPACKED_BYTES_MAX} bytes")

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        if self.sizes.get(name, 0) > SMALL_BYTES_MAX:
            raise BundleRefusedError(
                f"{name} would have {self.sizes[name]} bytes, more than {SMALL_BYTES_MAX}"
            )
        with self.reading(name) as member:
            content: bytes = member.read(SMALL_BYTES_MAX)
        return content

    def blob(self, blob: Blob) -> bytes:
        """A large answer, whole and unaltered. Raises BlobLostError too."""
        name = f"blob/{check_name(blob)}"
        if name not in self.sizes:
            raise BlobLostError(f"blob {blob.sha256} is missing")
        return checked(blob, self.read(name))

    @contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """A member as a file to read in pieces."""
        if name not in self.sizes:
            raise BundleRefusedError(f"{name} is missing")
        try:
            with self._archive.open(name) as member:
                yield member
        except (
            OSError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise BundleRefusedError(f"{name} is damaged: {error}") from None


def _check(info: zipfile.ZipInfo) -> None:
    if not _NAMES.fullmatch(info.filename):
        raise BundleRefusedError(f"it holds {info.filename[:100]!r}, which is not part of a bundle")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        raise BundleRefusedError(f"{info.filename} is encrypted, or packed in a way that bundles never are")
    if info.file_size > max(info.compress_size, 100) * RATIO_MAX:
        raise BundleRefusedError(
            f"{info.filename} unpacks from {info.compress_size} to {info.file_size} bytes: refused as a bomb"
        )
