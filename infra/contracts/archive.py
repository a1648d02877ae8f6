"""Contracts as bytes: the archive that a node stores of each contract, so that it needs no file of the operator's.

An archive holds the files that a contract runs, its meaning and its path. It is in the log (in the command that applies
the contract) and in the data directory under the contract's hash. Whenever an archive is opened it is checked: its
bytes are those that were stored, and they have the same meaning when they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import Meaning, meaning_of, sources_of_contract
from coordinator.infra.contracts.sources import SOURCES_BYTES_MAX, Sources, gather
from coordinator.infra.whole_file import write_whole
from coordinator.streams.contract import CrunchContract
from coordinator.streams.log.errors import ContractError

FORMAT = 1
"""Raise it when a release computes meanings in another way: of older archives only the bytes are then compared."""
ARCHIVE_BYTES_MAX = 2 * SOURCES_BYTES_MAX
FOLDER = "contracts"

log = structlog.get_logger()


class Archive(msgspec.Struct, frozen=True):
    """What is stored of a contract.

    `path` is its `module:attribute`; `files`: name below the import folder -> bytes.
    """

    format: int
    path: str
    meaning: Meaning
    files: dict[str, bytes]


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Archive)


def pack(contract: CrunchContract, path: str) -> bytes:
    """The archive of a loaded contract. Raises ContractError if the contract loaded from it has another meaning."""
    sources = sources_of_contract(contract) or _sources_at(path)
    meaning = meaning_of(contract)
    content = _encoder.encode(Archive(FORMAT, path, meaning, {} if sources is None else sources.files))
    unpack(content, meaning.hash)
    return content


def _sources_at(path: str) -> Sources | None:
    """The files of a contract that sets only built-in values: nothing in it says where it was loaded from."""
    module = path.partition(":")[0]
    return None if module.partition(".")[0] == "coordinator" else gather(module)


def read_archive(content: bytes) -> Archive:
    """The archive in these bytes. Raises ContractError if there is none."""
    if len(content) > ARCHIVE_BYTES_MAX:
        raise ContractError(f"a stored contract has {len(content)} bytes, more than {ARCHIVE_BYTES_MAX}")
    try:
        return _decoder.decode(content)
    except msgspec.DecodeError as error:
        raise ContractError(f"a stored contract cannot be read: {error}") from error


def unpack(content: bytes, contract_hash: str) -> CrunchContract:
    """The contract of an archive, run from the archive alone, under private module names.

    If a package that it imports has another version here, this is logged and is no error: the operator applied this
    contract. The same is true for a built-in default. Raises ContractError if the contract does not have
    `contract_hash`.
    """
    archive = read_archive(content)
    contract = load_contract(archive.path, Sources(archive.files) if archive.files else None)
    if archive.format != FORMAT:
        return contract
    if archive.meaning.hash != contract_hash:
        raise ContractError(
            f"the archive of contract {contract_hash[:12]} holds {archive.meaning.hash[:12]}: it is damaged"
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
            f"contract {contract_hash[:12]}, loaded from its archive, differs from the applied one: "
            f"{', '.join(differences(archive.meaning, same)) or 'it is damaged'}"
        )
    return contract


def differences(old: Meaning, new: Meaning) -> list[str]:
    """The differences of two contracts in fields, code, files and versions, each as a short text."""
    lines = []
    for name in sorted(old.fields.keys() | new.fields.keys()):
        before, after = old.fields.get(name, "not set"), new.fields.get(name, "not set")
        if before != after:
            lines.append(f"{name}: {_short(before)} -> {_short(after)}")
    pairs = (("", old.code, new.code), ("file ", old.data, new.data))
    for kind, olds, news in pairs:
        for name in sorted(olds.keys() | news.keys()):
            if olds.get(name) != news.get(name):
                change = "new" if name not in olds else "gone" if name not in news else "changed"
                lines.append(f"{kind}{name} {change}")
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
    """Archives in the data directory, one file each: the sha256 (hex) of the archive, a line end, the archive."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def get(self, contract_hash: str) -> bytes | None:
        """The archive of a hash; None if it is not in the folder or is damaged there (the log has it, too)."""
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
        """Store an archive, whole or not at all. If there is no writable data directory, only the log holds it."""
        try:
            if not self.folder.parent.is_dir() or self.get(contract_hash) == content:
                return
            self.folder.mkdir(exist_ok=True)
            digest = hashlib.sha256(content).hexdigest().encode()
            write_whole(self.folder / contract_hash, digest + b"\n" + content)
        except OSError as error:
            log.info("contract_kept_in_the_log_alone", contract=contract_hash[:12], reason=error.strerror)

    def hashes(self) -> Iterator[str]:
        """The hashes of the archives in the folder, sorted."""
        if self.folder.is_dir():
            yield from sorted(path.name for path in self.folder.iterdir() if len(path.name) == 64)  # noqa: PLR2004
