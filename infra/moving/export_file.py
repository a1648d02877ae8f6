"""The file that holds a whole node: a ZIP archive that any tool can open, with a SHA-256 over all of it at its end.

    manifest.json     whose log it is, which version wrote it, what was left out
    settings.env      the settings, without secrets and without what is of the machine
    contracts/<hash>  every contract that the log says was applied
    log.copy.gz       the records and blobs, as `coordinator topics backup` writes them

The hash is the archive's comment. Whoever reads the file hashes it first, in pieces: one that was cut short or altered
anywhere is refused before anything of it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from coordinator.infra.log.copy_file import DAMAGED
from coordinator.infra.whole_file import writing_whole
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.settings import read_settings

FORMAT = "coordinator-export/1"
MANIFEST, SETTINGS, LOG, CONTRACTS = "manifest.json", "settings.env", "log.copy.gz", "contracts/"
HASH_CHARS = 64
PIECE_BYTES = 1024 * 1024
SMALL_BYTES_MAX = 64 * 1024 * 1024
"""The largest size of a member that is read as a whole."""
MEMBERS_BYTES_MAX = 16 * SMALL_BYTES_MAX
"""The largest size of all of them together."""
OnBytes = Callable[[int, int], None]
"""(bytes read, bytes in all)"""
ENCRYPTED = 1
"""The bit of a member's flags."""
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_MEMBER = re.compile(
    rf"{re.escape(MANIFEST)}|{re.escape(SETTINGS)}|{re.escape(LOG)}|{CONTRACTS}[0-9a-f]{{64}}"
)


class Manifest(msgspec.Struct, frozen=True):
    """What the file is of. `records`, `sha256` and `lost` are those of the copied log's tail."""

    format: str
    version: str
    crunch_id: str
    birth_id: str
    records: int
    blobs: int
    sha256: str
    lost: list[str]
    secrets_left_out: list[str]
    """The variables that were set and are not in the file, by name."""
    machine_left_out: list[str]
    """The settings that name a place of the old machine: they are in the settings as comments."""


class ExportWriter:
    """The archive while it is written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def put(self, name: str, content: bytes) -> None:
        """Add a member as a whole."""
        with self._archive.open(_info(name, zipfile.ZIP_DEFLATED), "w") as member:
            member.write(content)

    def adding_log(self) -> IO[bytes]:
        """The log as a file to write in pieces; it is compressed already."""
        return self._archive.open(_info(LOG, zipfile.ZIP_STORED), "w", force_zip64=True)


def _info(name: str, compress_type: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _ZIP_EPOCH)
    info.compress_type = compress_type
    return info


@contextmanager
def writing_export(path: Path) -> Iterator[ExportWriter]:
    """The archive to write into. It appears at `path` with its hash, once all of it is on disk, or not at all."""
    with writing_whole(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = b"0" * HASH_CHARS
            yield ExportWriter(archive)
        size_bytes = file.seek(0, os.SEEK_END)
        digest = _digest(file, size_bytes - HASH_CHARS, _silent)
        file.seek(size_bytes - HASH_CHARS)
        file.write(digest)


class ExportFile:
    """An export to read: hashed as a whole at first. Raises OperatorError (no export, or of a newer version), LogError
    (cut short or altered); both name the file. Anybody can make the hash right, so nothing in it is believed for it.
    """

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        self.path = path
        _check_hash(path, on_bytes)
        with self._readable():
            self._archive = zipfile.ZipFile(path)
            self._check_members(self._archive.infolist())
            self.manifest = self._manifest()
            self.settings = self.read(SETTINGS).decode()
        # The id becomes a part of names. Raises OperatorError for what no crunch is called.
        read_settings({}, crunch_id=self.manifest.crunch_id)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (*DAMAGED, NotImplementedError) as error:
            raise LogError(f"{self.path} is not a complete export ({error}); nothing was imported") from error

    def _check_members(self, members: list[zipfile.ZipInfo]) -> None:
        names = [info.filename for info in members]
        strange = [
            info.filename
            for info in members
            if not _MEMBER.fullmatch(info.filename)
            or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            or info.flag_bits & ENCRYPTED
            or names.count(info.filename) > 1
        ]
        if strange:
            raise OperatorError(f"{self.path} holds {strange[0][:100]!r}, which is not part of an export")
        if LOG not in names:
            raise OperatorError(f"{self.path} is not an export of a node: {LOG} is missing")
        small_bytes = sum(info.file_size for info in members if info.filename != LOG)
        if small_bytes > MEMBERS_BYTES_MAX:
            raise OperatorError(f"{self.path}: the files beside its log would have {small_bytes} bytes")

    def _manifest(self) -> Manifest:
        content = self.read(MANIFEST)
        says = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get("format", msgspec.Raw(b'""'))
        if (format_name := msgspec.json.decode(says)) != FORMAT:
            raise OperatorError(
                f"{self.path} has the format {format_name!r}; this version of coordinator-node reads {FORMAT}: "
                "upgrade it, then import"
            )
        return msgspec.json.decode(content, type=Manifest)

    def read(self, name: str) -> bytes:
        """A small member. Raises OperatorError: it is missing or too large."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise OperatorError(f"{self.path} is not an export of a node: {name} is missing") from None
        if info.file_size > SMALL_BYTES_MAX:
            raise OperatorError(f"{self.path}: {name} would have {info.file_size} bytes")
        with self._readable():
            return self._archive.read(name)

    def contracts(self) -> Iterator[tuple[str, bytes]]:
        """(hash, archive) of every contract in it."""
        for name in self._archive.namelist():
            if name.startswith(CONTRACTS):
                yield name.removeprefix(CONTRACTS), self.read(name)

    def log(self) -> IO[bytes]:
        """The copied log, to read in pieces."""
        return self._archive.open(LOG)


def _check_hash(path: Path, on_bytes: OnBytes) -> None:
    try:
        with path.open("rb") as file:
            if (begins := file.read(2)) == b"\x1f\x8b":
                raise OperatorError(
                    f"{path} is a backup of topics, not an export: use `coordinator topics restore`"
                )
            if begins != b"PK":
                raise OperatorError(f"{path} is not an export of a node")
            hashed_bytes = file.seek(0, os.SEEK_END) - HASH_CHARS
            digest = _digest(file, max(hashed_bytes, 0), on_bytes)
            equal = file.read(HASH_CHARS) == digest
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}") from error
    if not equal:
        raise LogError(f"{path} is not a complete export: it was cut short or altered; nothing was imported")


def _digest(file: IO[bytes], size_bytes: int, on_bytes: OnBytes) -> bytes:
    """The SHA-256 in hex of the file's first bytes; leaves the file after them."""
    digest, done = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(min(PIECE_BYTES, size_bytes - done)):
        digest.update(piece)
        done += len(piece)
        on_bytes(done, size_bytes)
    return digest.hexdigest().encode()


def _silent(_done: int, _total: int) -> None:
    """The writer shows the progress of the records."""
