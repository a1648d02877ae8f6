"""The second half of the verdict on a bundle: computes everything again, in a confined process of its own.

The contract's code comes with the bundle, so it does not run in the process that asks for the verdict. The child may
read the installed libraries and the bundle, and nothing else. It has no network, writes no file, and its time and
memory are limited (`infra/models/host/confine.py` says what the kernel enforces). It runs the same audit as
`verify-e2e`.

One weakness remains: the author's code runs in the process that compares, and could be written to falsify the result.
But it is in the bundle, where everybody can read it, and the first half (`streams/evidence/bundle_judging.py`) does not
run it.

`python -m coordinator.infra.evidence.recompute BUNDLE` is the child; it writes lines of JSON to its standard output.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from threading import Timer

import msgspec

import coordinator
from coordinator.infra.contracts.archive import FORMAT as ARCHIVE_FORMAT
from coordinator.infra.contracts.archive import differences, read_archive, unpack
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.contracts.meaning import meaning_of
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.models.host.confine import HOST_ENVIRONMENT, confine, seal
from coordinator.streams.audit.checkpoint import PAST, STEPS, check_log, check_whole_log
from coordinator.streams.audit.facts import TOPICS_READ, AuditBlobs, Chain, ChainBrokenError, broken
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import ApplyContract
from coordinator.streams.evidence.bundle import (
    MANIFEST,
    Manifest,
    decode_manifest,
)
from coordinator.streams.evidence.bundle_judging import topic_of
from coordinator.streams.evidence.cut import Cut
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import ContractError, CoordinatorError

LINE_BYTES_MAX = 1024 * 1024
MEMORY_BYTES_MAX = 8 * 1024**3
FILE_BYTES_MAX = 0
CONTRACT_STEP = "contract"
ROUNDING = "rounding"
"""The last step, if figures differ by one unit of rounding and by no more."""


class ChildLine(msgspec.Struct, omit_defaults=True):
    """One line of the child: how it is confined, or a step with what was checked, or the reason why a step failed."""

    confined: str | None = None
    step: str = ""
    said: str = ""
    broken: str = ""


_decoder = msgspec.json.Decoder(ChildLine)


def recompute(bundle: Path, seconds_max: float) -> Iterator[tuple[str, str]]:
    """(step, what was checked) for each step from the feed to the emission, after `sandbox`; last `rounding`, if some
    figures differ by one unit of rounding. A bundle of the whole log has a step `past` before them.

    Raises ChainBrokenError with the step that failed, or with `contract` if the code ends the process or never ends.
    """
    whole = decode_manifest(BundleFile(bundle).read(MANIFEST)).cut is None
    with tempfile.TemporaryDirectory(prefix="coordinator-verify-") as empty:
        environment = {name: os.environ[name] for name in HOST_ENVIRONMENT if name in os.environ}
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "coordinator.infra.evidence.recompute", str(bundle.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        timer = Timer(seconds_max, child.kill)
        timer.start()
        try:
            yield from _read(child, seconds_max, timer, [PAST, *STEPS] if whole else [*STEPS])
        finally:
            timer.cancel()
            child.kill()
            child.wait()


def _read(
    child: subprocess.Popen[bytes], seconds_max: float, timer: Timer, due: list[str]
) -> Iterator[tuple[str, str]]:
    while text := child.stdout.readline(LINE_BYTES_MAX) if child.stdout else b"":
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue  # a line that the author's code printed
        if line.confined is not None:
            yield "sandbox", line.confined
        elif line.broken:
            raise ChainBrokenError(line.step, line.broken)
        elif due and line.step == due[0]:
            yield due.pop(0), line.said
        elif not due and line.step == ROUNDING:
            yield ROUNDING, line.said
    if due:
        why = (
            f"it did not end within {seconds_max:g} s, at the step {due[0]}"
            if not timer.is_alive()
            else f"the process that computes with it ended at the step {due[0]} (code {child.wait()})"
        )
        broken(CONTRACT_STEP, why)


class _BundleBlobs:
    """The large answers of a bundle: `BlobReader` for the audit."""

    def __init__(self, bundle: BundleFile) -> None:
        self.read = bundle.blob


class _BundleLog:
    """The topics of a bundle: `Topics` for the audit."""

    def __init__(self, bundle: BundleFile, cut: Cut | None) -> None:
        self._bundle = bundle
        self._cut = cut

    async def __call__(self, topic: str, start: Need) -> AsyncIterator[Decision]:
        for decision in self.read(topic):
            if decision.first_offset >= start.offset:
                yield decision

    def read(self, topic: str) -> Iterator[Decision]:
        """All decisions of a topic."""
        return topic_of(self._bundle, topic, self._cut)


def _contracts(log: _BundleLog, hashes: Iterable[str], versions: dict[str, str]) -> ContractShelf:
    """The contracts of these hashes, which the log commits to. Raises ChainBrokenError for one that is not in the
    bundle, is another, or was applied with other versions of libraries than `versions` names.
    """
    archives = {
        event.data.contract_hash: bytes(event.data.archive)
        for decision in log.read("commands")
        for event in decision.events
        if isinstance(event, ApplyContract)
    }
    shelf = ContractShelf(lambda wanted: _unpacked(archives, wanted))
    installed: dict[str, set[str]] = {}
    for wanted in dict.fromkeys(hashes):
        try:
            shelf(wanted)
            if wanted in archives:
                for name, version in read_archive(archives[wanted]).meaning.installed.items():
                    installed.setdefault(name, set()).add(version)
        except CoordinatorError as error:
            broken(CONTRACT_STEP, str(error))
    for name, applied_with in sorted(installed.items()):
        if versions.get(name) not in applied_with:
            broken(
                CONTRACT_STEP,
                f"{MANIFEST} names {name} {versions.get(name)}, the contract was applied with "
                f"{' and '.join(sorted(applied_with))}",
            )
    return shelf


def _unpacked(archives: dict[str, bytes], wanted: str) -> CrunchContract | None:
    """A node has seen what it applied. This check accepts no archive whose meaning it cannot compute."""
    if (content := archives.get(wanted)) is None:
        return None
    archive = read_archive(content)
    if archive.format != ARCHIVE_FORMAT:
        raise ContractError(
            f"the archive of contract {wanted[:12]} is of the format {archive.format}, which this release cannot "
            f"compare with its hash (it reads {ARCHIVE_FORMAT}): judge it with the node's release"
        )
    contract = unpack(content, wanted)
    if not archive.files:  # one of ours: `unpack` leaves it to the release, and a bundle may name any of them
        applied = archive.meaning
        here = msgspec.structs.replace(meaning_of(contract), installed=applied.installed, ours=applied.ours)
        if here.hash != wanted:
            changed = ", ".join(differences(applied, here))
            raise ContractError(f"contract {wanted[:12]} is not {archive.path} of this release: {changed}")
    return contract


async def _audit(bundle: BundleFile, manifest: Manifest, out: _ChildOutput) -> None:
    log = _BundleLog(bundle, manifest.cut)
    chain = Chain()
    for decision in log.read("checkpoints"):
        chain.take_in(decision)
    checkpoint = chain.checkpoints.get(manifest.checkpoint_id)
    if checkpoint is None:
        broken("checkpoint", f"the log has no checkpoint {manifest.checkpoint_id}")
    period = checkpoint.period_start, checkpoint.period_end
    whole = manifest.cut is None
    chain = Chain(period=None if whole else period, begins_later=not whole)
    chain.copy_of = manifest.copy_of
    chain.blobs = AuditBlobs(_BundleBlobs(bundle))
    for topic in TOPICS_READ:
        for decision in log.read(topic):
            chain.take_in(decision)
    chain.settle()
    hashes = [terms.data.contract_hash for terms in chain.terms.events]
    contracts = _contracts(log, hashes, manifest.versions)
    checkpoint = chain.checkpoints[manifest.checkpoint_id]
    check = check_whole_log if whole else check_log
    async for step, result in check(log, chain, checkpoint, contracts, manifest.crunch_id):
        out.say(ChildLine(step=step, said=result))
    if rounded := chain.roundings.said(checkpoint):
        out.say(ChildLine(step=ROUNDING, said=rounded))


class _ChildOutput:
    """The child's output: the original standard output. The author's `print` goes to nowhere from now on."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb", buffering=0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)

    def say(self, line: ChildLine) -> None:
        """One line."""
        self._file.write(msgspec.json.encode(line) + b"\n")


def _keep_in(bundle: Path) -> str:
    """Give up files, network, memory and child processes. Returns what the platform could enforce, as text."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libraries = {Path(entry).resolve() for entry in (*sys.path, sys.prefix, sys.base_prefix) if entry}
    # In an editable install the folders of the package are links to other places.
    libraries |= {folder.resolve() for entry in coordinator.__path__ for folder in Path(entry).iterdir()}
    enforced = [part for part in (confine({*libraries, bundle}, (), ()), seal()) if part]
    if len(enforced) == 2:  # noqa: PLR2004 - both
        return "the contract's code has no network and no files but the libraries and this bundle"
    return f"this platform does not keep the contract's code from everything (only: {', '.join(enforced) or 'nothing'})"


def main(path: Path) -> None:
    """The child."""
    out = _ChildOutput()
    bundle = BundleFile(path)
    out.say(ChildLine(confined=_keep_in(path)))
    try:
        asyncio.run(_audit(bundle, decode_manifest(bundle.read(MANIFEST)), out))
    except ChainBrokenError as error:
        out.say(ChildLine(step=error.step, broken=error.reason))
    except MemoryError:
        out.say(
            ChildLine(step=CONTRACT_STEP, broken=f"it needs more than {MEMORY_BYTES_MAX} bytes of memory")
        )
    except CoordinatorError as error:
        out.say(ChildLine(step=CONTRACT_STEP, broken=str(error)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
