"""The key that signs notes about the log: from a setting, or from the data directory, where the first start makes it.

Reads and writes `<data_dir>/evidence/key`, which only the owner may read, in the form of Go's note package. The key is
never in the log, a bundle or an answer. Others need only the public key, `key.pub` in the same folder.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from coordinator.infra.processes.data_dir import exclusive
from coordinator.streams.evidence.notes import ED25519, NoteError, SignerKey, VerifierKey
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

FOLDER = "evidence"
FILE, PUBLIC_FILE = "key", "key.pub"
OWNER_ONLY = 0o600


def origin_of(crunch_id: str) -> str:
    """The name under which a crunch's notes are signed."""
    return f"coordinator/{crunch_id}"


def signing_key(settings: Settings) -> SignerKey:
    """The node's key. Raises OperatorError if it cannot be read, if others may read it, or if it has another name."""
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
    (folder / PUBLIC_FILE).write_text(f"{key.verifier}\n", encoding="ascii")
    return key


def kept_key(path: Path, name: str, kind: int = ED25519) -> SignerKey:
    """The key at `path`, made there the first time. Raises OperatorError: it cannot be read, or others may read it."""
    try:
        with exclusive(path.parent / "lock"):
            if not path.exists():
                _write(path, SignerKey(name, secrets.token_bytes(32), kind))
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise OperatorError(
                    f"{path} may be read by others: chmod 600 it, or make a new key if they have"
                )
            return SignerKey.parse(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(
            f"the signing key {path} cannot be used ({error}); or set EVIDENCE_KEY"
        ) from error


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
            f"{path} names no key: a policy has one public key a line, as evidence/key.pub has it"
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
