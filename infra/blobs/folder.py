"""Bytes that the log only names: a folder of files whose names are the SHA-256 of what is in them.

Reads and writes `blobs/` of the data directory, or the folder that BLOBS_URL names. A file is there whole or not at
all, and each reading compares its size and hash with what the log says. No blob is deleted: a question may be asked
again, and a log played again.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from coordinator.infra.blobs.content import GIVEN_UP, check_name, checked, name_of, place_of_note
from coordinator.streams.events import Blob
from coordinator.streams.log.errors import BlobLostError, OperatorError

FOLDER = "blobs"


class BlobFolder:
    """The `Blobs` of one folder; any number of processes may use it. The folder is made at the first `put`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes) -> str:
        """Keep `content`, on the disk when this returns; its SHA-256. A file that is there already, but altered, is
        replaced.

        Raises OperatorError for too many bytes and for a folder that cannot be written.
        """
        sha256 = name_of(content)
        self._put(self.folder / sha256, content)
        with suppress(OperatorError):  # the scrub tries it again, and says why it cannot
            self.take_back(sha256)
        return sha256

    def read(self, blob: Blob) -> bytes:
        """The bytes of a blob. Raises BlobLostError, which names it, if they are missing or altered."""
        name = check_name(blob)
        try:
            with (self.folder / name).open("rb") as file:
                content = file.read(blob.bytes + 1)
        except FileNotFoundError:
            raise BlobLostError(f"blob {name} is missing") from None
        except OSError as error:
            raise BlobLostError(f"blob {name} cannot be read: {error.strerror or error}") from error
        return checked(blob, content)

    def look(self, blob: Blob) -> None:
        """Read it, and keep nothing. Raises as `read`."""
        self.read(blob)

    def give_up(self, sha256: str, reason: str) -> None:
        """Note that nobody has this blob any more. Raises OperatorError, also where the store has it."""
        note = self.folder / place_of_note(sha256)
        with suppress(OSError):
            if name_of((self.folder / sha256).read_bytes()) == sha256:
                raise OperatorError(f"{self.folder / sha256} exists and is complete: nothing is lost")
        self._put(note, reason.encode())
        # Root's command may have made the folder: the node's user, who has the store, is to remove the note from it.
        with suppress(OSError):
            owner = self.folder.stat()
            os.chown(note.parent, owner.st_uid, owner.st_gid)

    def given_up(self, sha256: str) -> str:
        """The reason that `give_up` noted, or ""."""
        try:
            return (self.folder / place_of_note(sha256)).read_text("utf-8", "replace").strip()
        except (OSError, OperatorError):
            return ""

    def notes(self) -> set[str]:
        """The names of the blobs that are given up."""
        try:
            return {path.name for path in (self.folder / GIVEN_UP).iterdir()}
        except OSError:
            return set()

    def take_back(self, sha256: str) -> None:
        """Remove the note, if there is one: the blob is back. Raises OperatorError."""
        note = self.folder / place_of_note(sha256)
        try:
            note.unlink(missing_ok=True)
        except OSError as error:
            raise OperatorError(f"{note} cannot be removed: {error.strerror or error}") from error

    def _put(self, path: Path, content: bytes) -> None:
        try:
            self._write(path, content)
        except OSError as error:
            raise OperatorError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own for each writer: two threads of one process may keep the same bytes. The mode is that of any
        # file, so that the node's user can read what root wrote by a command; `mkstemp` lets the writer alone read.
        partial = path.with_name(f"{path.name[:12]}.{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # the log names it next, and the log outlives a power cut
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
