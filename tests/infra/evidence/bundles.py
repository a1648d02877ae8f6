"""A whole small log with contracts that can be run from the log alone, and bundles of it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path

from tests.memory_log import Author, MemoryLog
from tests.streams.build import HASH
from tests.streams.test_crash_chain import ASKED, market

from coordinator.infra.contracts.archive import pack
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import contract_hash
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.bundling import write_bundle
from coordinator.infra.evidence.recompute import ChildLine, _audit
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    CheckpointOpened,
    CheckpointWithheld,
)
from coordinator.streams.evidence.bundle import MANIFEST, decode_manifest
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.settings import Settings

MODULE = "evidence_contracts"
RULES = f"""
from coordinator.streams.contract import CrunchContract

ASKED = {ASKED!r}
FIRST = CrunchContract(**ASKED, gap_wait_seconds=600)
SECOND = CrunchContract(**ASKED, grace_seconds=0, gap_policy="accept")
"""


class MemorySource:
    """`LogSource` of a log in memory."""

    copy_of = ""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def decisions(self, topic: str) -> AsyncIterator[Decision]:
        if topic != "commands":
            for decision in self._log.decisions(topic):
                yield decision
            return
        counter = PlainCounter(topic)
        for offset, record in enumerate(self._log[topic]):
            if (decision := counter.read(offset, record)) is not None:
                yield decision


@lru_cache
def applied(rules: str = RULES) -> dict[str, tuple[str, bytes]]:
    """Attribute -> (hash, archive) of the contracts in a text."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{MODULE}.py").write_text(rules)
        sys.path.insert(0, folder)
        try:
            contracts = {name: load_contract(f"{MODULE}:{name}") for name in ("FIRST", "SECOND")}
            return {
                name: (contract_hash(contract), pack(contract, f"{MODULE}:{name}"))
                for name, contract in contracts.items()
            }
        finally:
            sys.path.remove(folder)


@lru_cache
def whole_log(rules: str = RULES, seed: int = 1) -> MemoryLog:
    """The market under these contracts, with the commands that applied them."""
    contracts = applied(rules)
    log = market(seed).copy()
    for topic, records in log.topics.items():
        log.topics[topic] = [
            record.replace(HASH.encode(), contracts["FIRST"][0].encode()).replace(
                b'"new"', b'"%s"' % contracts["SECOND"][0].encode()
            )
            for record in records
        ]
    commands = Author(log, "commands")
    for number, (name, (the_hash, archive)) in enumerate(contracts.items()):
        data = ApplyContractData(contract_hash=the_hash, path=f"{MODULE}:{name}", archive=archive)
        commands.write(ApplyContract(id=f"cmd/apply/{number}", at=number, data=data))
    return log


def checkpoints_of(log: MemoryLog) -> list[str]:
    """The ids of the checkpoints, oldest first."""
    return [
        event.data.checkpoint_id
        if isinstance(event, CheckpointOpened)
        else event.data.checkpoint.checkpoint_id
        for event in log.events("checkpoints")
        if isinstance(event, (CheckpointOpened, CheckpointWithheld))
    ]


def bundle_of(folder: Path, log: MemoryLog, number: int = -1, *, whole: bool = False) -> Path:
    """The bundle of a checkpoint, written below `folder` with the key there."""
    data_dir = folder / "node"
    data_dir.mkdir(exist_ok=True)
    settings = Settings(crunch_id="btc-up", data_dir=data_dir)
    path = folder / "checkpoint.bundle"
    asyncio.run(write_bundle(settings, MemorySource(log), checkpoints_of(log)[number], path, whole=whole))
    return path


class _Unsaid:
    """Stands in place of the child's output, which is not needed."""

    def say(self, line: ChildLine) -> None:
        """Nothing."""


def computed_again(path: Path) -> str:
    """The step of the second half that fails, "" if all pass. Runs in this process, where contracts are the test's own."""
    bundle = BundleFile(path)
    try:
        asyncio.run(_audit(bundle, decode_manifest(bundle.read(MANIFEST)), _Unsaid()))  # type: ignore[arg-type]
    except ChainBrokenError as error:
        return error.step
    return ""
