"""Makes a bundle from the log. Reads it twice: once to find how far the checkpoint reaches, once to write.

Reads a `LogSource` (the topics of Kafka) and the key in the data directory; writes the bundle, whole or not at all.
Also writes the tiles and notes of the tree that are not there yet (`tree_files.py`); every process makes the same ones.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from coordinator.infra.contracts.archive import read_archive
from coordinator.infra.evidence.bundle_file import adding, put, writing
from coordinator.infra.evidence.key import signing_key
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.infra.log.positions import offsets, reading
from coordinator.infra.log.whole import whole_topic
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    CheckpointData,
)
from coordinator.streams.evidence.bundle import (
    FORMAT,
    LOG_TOPICS,
    MANIFEST,
    NOTE,
    Manifest,
    encode_manifest,
    frames_of,
)
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.judging import CHECKPOINT, EMISSION, built_in
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tiles import paths_of
from coordinator.streams.log.birth import read_birth
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.settings import Settings

ALWAYS_SAID = ("coordinator-node", "msgspec", "numpy", "pydantic", "pydantic-core")
TELL_EVERY = 500
OnRead = Callable[[int, int], None]
"""(records read, records in all)"""


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


async def write_bundle(settings: Settings, source: LogSource, checkpoint_id: str, path: Path) -> Bundled:
    """Write the bundle of a checkpoint to `path`. Raises OperatorError (no such checkpoint, no key), WorldError,
    LogError.
    """
    if not settings.data_dir.is_dir():
        raise OperatorError(
            f"there is no data directory {settings.data_dir}, and the key that signs is in it: run this where the "
            "report worker's directory is, or name it with --data-dir"
        )
    rows, paid = RowsInMemory(), dict[str, CheckpointData]()
    for topic in LEAF_TOPICS:
        async for decision in source.decisions(topic):
            if rows.add(decision).names and topic == "checkpoints":
                paid |= {data.checkpoint_id: data for data in built_in(decision)}
    if checkpoint_id not in paid:
        raise OperatorError(
            f"the topics have no checkpoint {checkpoint_id} (`coordinator checkpoint list` names them)"
        )
    files = TreeFiles(settings.data_dir, signing_key(settings))
    batch = _grown(files, rows, checkpoint_id)
    with writing(path) as archive:
        appends, applied = 0, list[ApplyContractData]()
        for topic in LOG_TOPICS:
            with adding(archive, f"log/{topic}") as member:
                async for decision in source.decisions(topic):
                    if topic == "commands":
                        applied += [
                            event.data for event in decision.events if isinstance(event, ApplyContract)
                        ]
                    elif decision.offset > batch.runs[topic].end:
                        break
                    for frame in frames_of(decision):
                        member.write(frame)
                        appends += 1
        key, copy_of = str(files.key.verifier), source.copy_of
        batches = [earlier for earlier in files.batches() if earlier.number <= batch.number][::-1]
        manifest = Manifest(
            FORMAT, settings.crunch_id, checkpoint_id, copy_of, key, _versions(applied), batches
        )
        put(archive, MANIFEST, encode_manifest(manifest))
        put(archive, NOTE, files.note(batch))
        for name in paths_of(batch.size):
            put(archive, name, files.tile(name))
        data = paid[checkpoint_id]
        put(archive, EMISSION, msgspec.json.encode(data.emission, order="deterministic"))
        put(archive, CHECKPOINT, msgspec.json.encode(data, order="deterministic"))
    return Bundled(checkpoint_id, appends, batch.size)


def _grown(files: TreeFiles, rows: RowsInMemory, checkpoint_id: str) -> Batch:
    """The batch of a checkpoint, after the tree on disk has grown to it. Raises OperatorError."""
    while (pending := files.next(rows)) is not None:  # `next` also checks that the files are of this log
        if files.batch_of(checkpoint_id) is not None:
            break
        files.keep(*pending)
    batch = files.batch_of(checkpoint_id)
    if batch is None:
        raise OperatorError(f"not all that {checkpoint_id} was made of is in the topics")
    return batch


def _versions(applied: list[ApplyContractData]) -> dict[str, str]:
    """Package -> version, for the libraries of this node and those that the contracts were applied with."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ALWAYS_SAID}
    for data in applied:
        versions |= read_archive(bytes(data.archive)).meaning.installed
    return versions
