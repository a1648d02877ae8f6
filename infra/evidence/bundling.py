"""Makes a bundle from the log. Reads it twice: once to find how far the checkpoint reaches, once to write. Between them
`beginning.py` reads the topics of stages, to find where the bundle may begin.

Reads a `LogSource` (the topics of Kafka) and the key in the data directory; writes the bundle, whole or not at all.
Also writes the tiles and notes of the tree that are not there yet (`tree_files.py`); every process makes the same ones.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.archive import read_archive
from coordinator.infra.evidence.bundle_file import adding, put, put_blob, writing
from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.infra.log.positions import offsets, reading
from coordinator.infra.log.whole_topics import whole_topic
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    Blob,
    CheckpointData,
    CheckpointOpened,
    CrunchConfigured,
)
from coordinator.streams.evidence.beginning import plan_of
from coordinator.streams.evidence.bundle import (
    FORMAT,
    LOG_TOPICS,
    MANIFEST,
    NOTE,
    Manifest,
    encode_manifest,
    frames_of,
)
from coordinator.streams.evidence.bundle_judging import CHECKPOINT, EMISSION, built_in
from coordinator.streams.evidence.cut import RULES, Cut, EarlierAppend, Plan, tiles_after
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.merkle import Subtrees
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tiles import subtrees_of, tile_path, tile_width
from coordinator.streams.large_answers import blobs_of
from coordinator.streams.log.birth import read_birth
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import BlobLostError, OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.ports import BlobReader
from coordinator.streams.settings import Settings

ALWAYS_SAID = ("coordinator-node", "msgspec", "numpy", "pydantic", "pydantic-core")
LATEST = "latest"
TELL_EVERY = 500
OnRead = Callable[[int, int], None]
"""(records read, records in all)"""


class NotInLogError(OperatorError):
    """The topics do not hold the checkpoint, or lack records from which it was computed."""


class LogSource(Protocol):
    """The log from its first record on."""

    copy_of: str
    """If the log is a copy under another crunch id: the original crunch id. Set after `commands` was read."""

    def decisions(self, topic: str) -> AsyncIterator[Decision]:
        """The counted decisions of a topic; in `commands` each event is a decision."""


class Bundled(msgspec.Struct, frozen=True):
    """What was written."""

    checkpoint_id: str
    appends: int
    leaves: int
    after: str = ""
    """The checkpoint after which it begins; "" for one that holds the whole log."""


class KafkaSource:
    """The topics of a crunch on Kafka, each up to its end at the first call. Raises WorldError, LogError."""

    def __init__(self, bootstrap: str, crunch_id: str, on_read: OnRead) -> None:
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self._on_read = on_read
        self._ends: dict[str, tuple[int, int]] = {}
        self._read = 0
        self.copy_of = ""

    async def decisions(self, topic: str) -> AsyncIterator[Decision]:
        """See `LogSource`."""
        async with reading(self._bootstrap) as consumer:
            self._ends = self._ends or await offsets(consumer, self._crunch_id)
            total = 2 * sum(end for _, end in self._ends.values())
            counter = counter_for(topic)
            async for offset, record in whole_topic(consumer, self._crunch_id, topic, self._ends[topic]):
                if offset == 0 and (birth := read_birth(record)) is not None:
                    self.copy_of = birth.data.copy_of
                self._read += 1
                if self._read % TELL_EVERY == 0:
                    self._on_read(min(self._read, total), total)
                if (decision := counter.read(offset, record)) is not None:
                    yield decision


class _WholeLog:
    """What a first look through the log finds: the rows of the tree, every checkpoint that was built, all terms."""

    def __init__(self) -> None:
        self.rows, self.terms = RowsInMemory(), TermsInForce()
        self.checkpoints: dict[str, CheckpointData] = {}
        self.offered = ""
        """The newest checkpoint that was offered."""

    async def read(self, source: LogSource) -> None:
        for topic in LEAF_TOPICS:
            async for decision in source.decisions(topic):
                if topic == "inputs" and decision.may_hold(RULES):
                    for event in decision.events:
                        if isinstance(event, CrunchConfigured):
                            self.terms.add(event)
                if self.rows.add(decision).names and topic == "checkpoints":
                    self.checkpoints |= {data.checkpoint_id: data for data in built_in(decision)}
                    for event in decision.events:
                        if isinstance(event, CheckpointOpened):
                            self.offered = event.data.checkpoint_id

    def checkpoint(self, checkpoint_id: str) -> CheckpointData:
        """That checkpoint; of `latest`, the newest one offered. Raises OperatorError."""
        if checkpoint_id == LATEST:
            checkpoint_id = self.offered
        if not checkpoint_id:
            raise OperatorError("no checkpoint has been offered yet")
        if checkpoint_id not in self.checkpoints:
            raise NotInLogError(
                f"the topics have no checkpoint {checkpoint_id} (`coordinator checkpoint list` names them)"
            )
        return self.checkpoints[checkpoint_id]

    def leaves_of(self, decision: Decision, batches: list[Batch]) -> list[int]:
        """The indexes in the tree of a decision's appends."""
        topic = decision.topic
        row = self.rows.row(topic, decision.offset)
        of = next((batch for batch in batches if decision.offset <= batch.runs[topic].end), None)
        if row is None or of is None:
            message = f"{topic} offset {decision.offset} was read and is not there any more"
            raise NotInLogError(message)
        return [of.index_of(topic, row, part) for part in range(1, len(decision.bodies) + 1)]


class _LogMembers:
    """The second look, which writes: the topics as far as the checkpoint reaches, from where `plan` begins."""

    def __init__(self, log: _WholeLog, batches: list[Batch], plan: Plan | None, subtrees: Subtrees) -> None:
        """`batches`: that of the checkpoint and all before it, the oldest first."""
        self._log, self._batches, self._plan, self._subtrees = log, batches, plan, subtrees
        self._begins: dict[str, int] = {}
        self._earlier: dict[str, list[EarlierAppend]] = {}
        self.appends = 0
        self.applied: list[ApplyContractData] = []
        self.large: dict[str, Blob] = {}
        """The large answers that are named in what was written, by their SHA-256."""

    @property
    def cut(self) -> Cut | None:
        """Where the bundle begins; None for one of the whole log."""
        return None if self._plan is None else Cut(self._plan.batch, self._begins, self._earlier)

    async def write(self, archive: zipfile.ZipFile, source: LogSource) -> None:
        for topic in LOG_TOPICS:
            with adding(archive, f"log/{topic}") as member:
                async for decision in source.decisions(topic):
                    if topic == "commands":
                        self.applied += [
                            event.data for event in decision.events if isinstance(event, ApplyContract)
                        ]
                    elif decision.offset > self._batches[-1].runs[topic].end:
                        break
                    if not self._is_held(topic, decision):
                        continue
                    if topic == "predictions":
                        self.large |= {blob.sha256: blob for blob in blobs_of(decision)}
                    for frame in frames_of(decision):
                        member.write(frame)
                        self.appends += 1

    def _is_held(self, topic: str, decision: Decision) -> bool:
        """Whether the decision is in the bundle. Of one from before its beginning, the places in the tree are noted."""
        if self._plan is None:
            return True
        if not self._plan.holds(decision):
            return False
        if topic != "commands" and decision.offset <= self._plan.batch.runs[topic].end:
            self._earlier.setdefault(topic, []).extend(
                EarlierAppend.of(self._subtrees, index, self._batches[-1].size)
                for index in self._log.leaves_of(decision, self._batches)
            )
        else:
            self._begins.setdefault(topic, decision.seq)
        return True


async def write_bundle(
    settings: Settings,
    source: LogSource,
    checkpoint_id: str,
    path: Path,
    blobs: BlobReader | None = None,
    *,
    whole: bool = False,
) -> Bundled:
    """Write the bundle of a checkpoint to `path`; of `latest`, that of the newest one offered. It begins where the
    checkpoint's period looks back to, or with the first append if `whole`. `blobs` are those of the settings by
    default; a large answer that is lost is left out, and `verify` names it. Raises OperatorError (no
    such checkpoint, no key), WorldError, LogError.
    """
    if not settings.data_dir.is_dir():
        raise OperatorError(
            f"there is no data directory {settings.data_dir}, and it should hold the signing key: run this where the "
            "report worker's directory is, or name it with --data-dir"
        )
    log = _WholeLog()
    await log.read(source)
    data = log.checkpoint(checkpoint_id)
    files, store = TreeFiles(settings.data_dir, signing_keys(settings)), blobs or store_of(settings)
    batch = _grown(files, log.rows, data.checkpoint_id)
    batches = [older for older in files.batches() if older.number <= batch.number][::-1]
    plan = None if whole else await plan_of(source, batches, log.checkpoints, data, log.terms)
    members = _LogMembers(log, batches, plan, subtrees_of(files.tile, batch.size))
    with writing(path) as archive:
        await members.write(archive, source)
        for blob in members.large.values():
            with suppress(BlobLostError):
                put_blob(archive, await asyncio.to_thread(store.read, blob))
        cut = members.cut
        manifest = Manifest(
            FORMAT,
            settings.crunch_id,
            data.checkpoint_id,
            source.copy_of,
            str(files.signer(batch).verifier),
            _versions(members.applied),
            batches if cut is None else batches[batches.index(cut.batch) + 1 :],
            cut,
        )
        put(archive, MANIFEST, encode_manifest(manifest))
        put(archive, NOTE, files.note(batch))
        for level, indexes in tiles_after(cut.batch.size if cut else 0, batch.size):
            for index in indexes:
                name = tile_path(level, index, tile_width(level, index, batch.size))
                put(archive, name, files.tile(name))
        put(archive, EMISSION, msgspec.json.encode(data.emission, order="deterministic"))
        put(archive, CHECKPOINT, msgspec.json.encode(data, order="deterministic"))
    return Bundled(
        data.checkpoint_id, members.appends, batch.size, cut.batch.checkpoint_ids[-1] if cut else ""
    )


def _grown(files: TreeFiles, rows: RowsInMemory, checkpoint_id: str) -> Batch:
    """The batch of a checkpoint, after the tree on disk has grown to it. Raises OperatorError."""
    while (pending := files.next(rows)) is not None:  # `next` also checks that the files are of this log
        if files.batch_of(checkpoint_id) is not None:
            break
        files.keep(*pending)
    batch = files.batch_of(checkpoint_id)
    if batch is None:
        raise NotInLogError(f"not all that {checkpoint_id} was made of is in the topics")
    return batch


def _versions(applied: list[ApplyContractData]) -> dict[str, str]:
    """Package -> version, for the libraries of this node and those that the contracts were applied with."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ALWAYS_SAID}
    for data in applied:
        versions |= read_archive(bytes(data.archive)).meaning.installed
    return versions
