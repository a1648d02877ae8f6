"""The second half of the verdict on a bundle: computes everything again, in a confined process of its own.

The contract's code comes with the bundle, so it does not run in the process that asks for the verdict. The child may
read the installed libraries and the bundle, and nothing else. It has no network, writes no file, and its time and
memory are limited (`infra/models/host/confine.py` says what the kernel enforces). It runs the same audit as
`verify-e2e`.

One weakness remains: the author's code runs in the process that compares, and could be written to falsify the result.
But it is in the bundle, where everybody can read it, and the first half (`streams/evidence/judging.py`) does not run
it.

`python -m coordinator.infra.evidence.recompute BUNDLE` is the child; it writes lines of JSON to its standard output.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Timer

import msgspec

import coordinator
from coordinator.infra.contracts.archive import unpack
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.models.host.confine import HOST_ENVIRONMENT, confine, seal
from coordinator.streams.audit.checkpoint import STEPS, check_log
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError, broken
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import ApplyContract
from coordinator.streams.evidence.bundle import (
    MANIFEST,
    Manifest,
    decisions_in,
    decode_manifest,
    read_frames,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import CoordinatorError

LINE_BYTES_MAX = 1024 * 1024
MEMORY_BYTES_MAX = 8 * 1024**3
FILE_BYTES_MAX = 0
CONTRACT_STEP = "contract"


class Line(msgspec.Struct, omit_defaults=True):
    """One line of the child: how it is confined, or a step with what was checked, or the reason why a step failed."""

    confined: str | None = None
    step: str = ""
    said: str = ""
    broken: str = ""


_decoder = msgspec.json.Decoder(Line)


def recompute(bundle: Path, seconds_max: float) -> Iterator[tuple[str, str]]:
    """(step, what was checked) for each step from the feed to the emission, after `sandbox`.

    Raises ChainBrokenError with the step that failed, or with `contract` if the code ends the process or never ends.
    """
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
            yield from _read(child, seconds_max, timer)
        finally:
            timer.cancel()
            child.kill()
            child.wait()


def _read(child: subprocess.Popen[bytes], seconds_max: float, timer: Timer) -> Iterator[tuple[str, str]]:
    due = list(STEPS)
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
    if due:
        why = (
            f"it did not end within {seconds_max:g} s, at the step {due[0]}"
            if not timer.is_alive()
            else f"the process that computes with it ended at the step {due[0]} (code {child.wait()})"
        )
        broken(CONTRACT_STEP, why)


class _BundleLog:
    """The topics of a bundle: `Topics` for the audit."""

    def __init__(self, bundle: BundleFile) -> None:
        self._bundle = bundle

    async def __call__(self, topic: str, start: Need) -> AsyncIterator[Decision]:
        for decision in self.read(topic):
            if decision.first_offset >= start.offset:
                yield decision

    def read(self, topic: str) -> Iterator[Decision]:
        """All decisions of a topic."""
        name = f"log/{topic}"
        with self._bundle.reading(name) as member:
            yield from decisions_in(topic, read_frames(member, name))


def _contracts(log: _BundleLog) -> ContractShelf:
    archives = {
        event.data.contract_hash: bytes(event.data.archive)
        for decision in log.read("commands")
        for event in decision.events
        if isinstance(event, ApplyContract)
    }

    def find(contract_hash: str) -> CrunchContract | None:
        content = archives.get(contract_hash)
        return None if content is None else unpack(content, contract_hash)

    return ContractShelf(find)


async def _audit(bundle: BundleFile, manifest: Manifest, out: _Out) -> None:
    log = _BundleLog(bundle)
    chain = Chain()
    for decision in log.read("checkpoints"):
        chain.take_in(decision)
    checkpoint = chain.checkpoints.get(manifest.checkpoint_id)
    if checkpoint is None:
        broken("checkpoint", f"the log has no checkpoint {manifest.checkpoint_id}")
    chain = Chain(period=(checkpoint.period_start, checkpoint.period_end))
    chain.copy_of = manifest.copy_of
    for topic in TOPICS_READ:
        for decision in log.read(topic):
            chain.take_in(decision)
    chain.settle()
    contracts = _contracts(log)
    for terms in chain.terms.events:
        try:
            contracts(terms.data.contract_hash)
        except CoordinatorError as error:
            broken(CONTRACT_STEP, str(error))
    async for step, said in check_log(log, chain, checkpoint, contracts, manifest.crunch_id):
        out.say(Line(step=step, said=said))


class _Out:
    """The child's output: the original standard output. The author's `print` goes to nowhere from now on."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb", buffering=0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)

    def say(self, line: Line) -> None:
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
    out = _Out()
    bundle = BundleFile(path)
    out.say(Line(confined=_keep_in(path)))
    try:
        asyncio.run(_audit(bundle, decode_manifest(bundle.read(MANIFEST)), out))
    except ChainBrokenError as error:
        out.say(Line(step=error.step, broken=error.reason))
    except MemoryError:
        out.say(Line(step=CONTRACT_STEP, broken=f"it needs more than {MEMORY_BYTES_MAX} bytes of memory"))
    except CoordinatorError as error:
        out.say(Line(step=CONTRACT_STEP, broken=str(error)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
