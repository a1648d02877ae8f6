"""Contracts as bytes: what a node keeps of each one, so that it needs no file of the operator's to go on.

An archive has the files that a contract runs, its meaning and its path. It travels in the log (the command that
applies it) and lies in the data directory under the contract's hash. It is checked whenever it is opened: the same
bytes as were kept, and the same meaning when they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import Meaning, meaning_of, sources_of_contract
from coordinator.infra.contracts.sources import SOURCES_BYTES_MAX, Sources
from coordinator.streams.contract import CrunchContract
from coordinator.streams.log.errors import ContractError

FORMAT = 1
"""Of the meaning too: a release that reads meanings in another way raises it, and then only the bytes are compared."""
ARCHIVE_BYTES_MAX = 2 * SOURCES_BYTES_MAX
FOLDER = "contracts"

log = structlog.get_logger()


class Archive(msgspec.Struct, frozen=True):
    """What is kept of a contract. `path` is its `module:attribute`, `files` are by name below the import folder."""

    format: int
    path: str
    meaning: Meaning
    files: dict[str, bytes]


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Archive)


def pack(contract: CrunchContract, path: str) -> bytes:
    """The archive of a loaded contract. Raises ContractError when it does not load from there to the same meaning."""
    sources = sources_of_contract(contract)
    meaning = meaning_of(contract)
    content = _encoder.encode(Archive(FORMAT, path, meaning, {} if sources is None else sources.files))
    unpack(content, meaning.hash)
    return content


def read_archive(content: bytes) -> Archive:
    """Raises ContractError for bytes that are no archive."""
    if len(content) > ARCHIVE_BYTES_MAX:
        raise ContractError(f"a kept contract of {len(content)} bytes, the most is {ARCHIVE_BYTES_MAX}")
    try:
        return _decoder.decode(content)
    except msgspec.DecodeError as error:
        raise ContractError(f"a kept contract cannot be read: {error}") from error


def unpack(content: bytes, contract_hash: str) -> CrunchContract:
    """The contract of an archive, run from it alone and under private names.

    Another version of a package that it imports, or of a default of ours, is said and no error: the contract is the one
    that was applied. Raises ContractError when it is not the one of the hash `wanted`.
    """
    archive = read_archive(content)
    contract = load_contract(archive.path, Sources(archive.files) if archive.files else None)
    if archive.format != FORMAT:
        return contract
    if archive.meaning.hash != contract_hash:
        raise ContractError(
            f"what is kept as contract {contract_hash[:12]} is {archive.meaning.hash[:12]}: it is damaged"
        )
    now = meaning_of(contract)
    for name in sorted(archive.meaning.installed.keys() | now.installed.keys()):
        then, here = archive.meaning.installed.get(name), now.installed.get(name)
        if then != here:
            log.warning(
                "contract_on_other_version",
                contract=contract_hash[:12],
                package=name,
                applied_with=then,
                here=here,
            )
    same = msgspec.structs.replace(now, installed=archive.meaning.installed, ours=archive.meaning.ours)
    if archive.files and same.hash != contract_hash:
        raise ContractError(
            f"contract {contract_hash[:12]}, run from what is kept of it, is not what was applied: "
            f"{', '.join(differences(archive.meaning, same)) or 'it is damaged'}"
        )
    return contract


def differences(old: Meaning, new: Meaning) -> list[str]:
    """What two contracts differ in, one short text each: fields, code, files, versions."""
    lines = []
    for name in sorted(old.fields.keys() | new.fields.keys()):
        before, after = old.fields.get(name, "not set"), new.fields.get(name, "not set")
        if before != after:
            lines.append(f"{name}: {_short(before)} -> {_short(after)}")
    pairs = (("", old.code, new.code), ("file ", old.data, new.data))
    for kind, olds, news in pairs:
        for name in sorted(olds.keys() | news.keys()):
            if olds.get(name) != news.get(name):
                how = "new" if name not in olds else "gone" if name not in news else "changed"
                lines.append(f"{kind}{name} {how}")
    for versions, other in ((old.installed, new.installed), (old.ours, new.ours)):
        lines += [
            f"{name} {versions.get(name, 'not used')} -> {other.get(name, 'not used')}"
            for name in sorted(versions.keys() | other.keys())
            if versions.get(name) != other.get(name)
        ]
    return lines


def _short(value: object) -> str:
    return msgspec.json.encode(value).decode()[:120] if not isinstance(value, str) else value


class ArchiveFolder:
    """Archives in the data directory, a file each: the sha256 of what follows, a line end, the archive."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def get(self, contract_hash: str) -> bytes | None:
        """The archive of a hash; None where it is not kept here, or no longer whole (then the log has it)."""
        try:
            stored = (self.folder / contract_hash).read_bytes()
        except OSError:
            return None
        digest, _, content = stored.partition(b"\n")
        if digest.decode("ascii", "replace") != hashlib.sha256(content).hexdigest():
            log.warning(
                "kept_contract_damaged", contract=contract_hash[:12], file=str(self.folder / contract_hash)
            )
            return None
        return content

    def put(self, contract_hash: str, content: bytes) -> None:
        """Keep it, whole or not at all. Without a data directory, or with a read-only one, the log alone keeps it."""
        try:
            if not self.folder.parent.is_dir() or self.get(contract_hash) == content:
                return
            self.folder.mkdir(exist_ok=True)
            partial = self.folder / f"{contract_hash}.partial"
            partial.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            partial.replace(self.folder / contract_hash)
        except OSError as error:
            log.info("contract_kept_in_the_log_alone", contract=contract_hash[:12], reason=error.strerror)

    def hashes(self) -> Iterator[str]:
        """What is kept here, in order."""
        if self.folder.is_dir():
            yield from sorted(path.name for path in self.folder.iterdir() if len(path.name) == 64)  # noqa: PLR2004
