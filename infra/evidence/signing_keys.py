"""The keys that sign notes about the log: the first from a setting or the data directory, later ones by rotation.

Reads and writes `<data_dir>/evidence/key`, which the first start makes, and `keys/<id>` for each key that a rotation
made. Only the owner may read them; they have the form of Go's note package. A key is never in the log, a bundle or an
answer. Others need only the public key in force, `key.pub` in the same folder.

Which key signs follows from the log alone: the rotations in a tree say who signs its note. So no file is moved when a
key is rotated, and whenever a process is killed, the keys and the log fit together.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from coordinator.infra.processes.data_dir import exclusive
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import ED25519, NoteError, SignerKey, VerifierKey
from coordinator.streams.signing.rotation import Successors, in_force

FOLDER = "evidence"
FILE, PUBLIC_FILE, ROTATED = "key", "key.pub", "keys"
OWNER_ONLY = 0o600


def origin_of(crunch_id: str) -> str:
    """The name under which a crunch's notes are signed."""
    return f"coordinator/{crunch_id}"


class Keys:
    """The keys of a node, by the rotations in its log. `first` is the one that it began with."""

    def __init__(self, first: SignerKey, folder: Path) -> None:
        self.first = first
        self._folder = folder

    def signer(self, successors: Successors) -> SignerKey:
        """The key that signs the note of a tree with these rotations. Raises OperatorError if it is not held here."""
        wanted = in_force(str(self.first.verifier), successors)
        for key in (self.first, *self._rotated()):
            if str(key.verifier) == wanted:
                return key
        raise OperatorError(
            f"after the rotations in the log the key {wanted} must sign, but {self._folder / ROTATED} does not hold "
            "it: copy its "
            "file from the machine where `coordinator evidence rotate-key` ran, or set EVIDENCE_KEY to it"
        )

    def next_key(self, successors: Successors) -> SignerKey:
        """A key for the next rotation: one that was made for it before and never came into force, or else a new one."""
        verifiers = {*successors, *successors.values(), str(self.first.verifier)}
        for key in self._rotated():
            if str(key.verifier) not in verifiers:
                return key
        key = SignerKey(self.first.verifier.name, secrets.token_bytes(32))
        (self._folder / ROTATED).mkdir(parents=True, exist_ok=True)
        _write(self.path_of(key), key)
        return key

    def path_of(self, key: SignerKey) -> Path:
        """The file of a key that a rotation made."""
        return self._folder / ROTATED / key.verifier.key_id.hex()

    def _rotated(self) -> list[SignerKey]:
        paths = sorted(
            path for path in (self._folder / ROTATED).glob("*") if re.fullmatch("[0-9a-f]{8}", path.name)
        )
        return [_read(path) for path in paths]


def signing_keys(settings: Settings) -> Keys:
    """The node's keys. Raises as `signing_key` does."""
    return Keys(signing_key(settings), settings.data_dir / FOLDER)


def publish(folder: Path, key: SignerKey) -> None:
    """Write the public key that is in force beside the tree."""
    (folder / PUBLIC_FILE).write_text(f"{key.verifier}\n", encoding="ascii")


def signing_key(settings: Settings) -> SignerKey:
    """The key that the node began with. Raises OperatorError if it cannot be read, if others may read it, or if it has
    another name.
    """
    origin = origin_of(settings.crunch_id)
    from_setting = settings.evidence_key.get_secret_value()
    folder = settings.data_dir / FOLDER
    if from_setting:
        key = SignerKey.parse(from_setting)
        if key.verifier.name != origin:
            raise OperatorError(f"EVIDENCE_KEY is the key of {key.verifier.name}, not of {origin}")
        return key
    path = folder / FILE
    key = kept_key(path, origin)
    if key.verifier.name != origin:
        raise OperatorError(f"{path} is the key of {key.verifier.name}, not of {origin}")
    return key


def kept_key(path: Path, name: str, kind: int = ED25519) -> SignerKey:
    """The key at `path`, made there the first time. Raises OperatorError: it cannot be read, or others may read it."""
    try:
        with exclusive(path.parent / "lock"):
            if not path.exists():
                _write(path, SignerKey(name, secrets.token_bytes(32), kind))
    except OSError as error:
        raise _unusable(path, error) from error
    return _read(path)


def _read(path: Path) -> SignerKey:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise OperatorError(
                f"{path} can be read by other users: run chmod 600 on it. If somebody may have read it, see "
                "docs/how-to/evidence.md about a leaked key"
            )
        return SignerKey.parse(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> OperatorError:
    return OperatorError(f"the signing key {path} cannot be used ({error}); or set EVIDENCE_KEY")


def known_keys(path: Path) -> list[VerifierKey]:
    """The public keys of a policy file: one on each line, `#` begins a comment. Raises OperatorError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} cannot be read: {error}") from error
    keys: list[VerifierKey] = []
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            try:
                keys.append(VerifierKey.parse(text))
            except NoteError as error:
                raise OperatorError(f"{path}, line {number}: {error}") from error
    if not keys:
        raise OperatorError(
            f"{path} holds no key: a policy file has one public key on each line, in the form of evidence/key.pub"
        )
    return keys


def _write(path: Path, key: SignerKey) -> None:
    """Write the key's file, whole or not at all. At no time may others read it."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key.secret_text())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
