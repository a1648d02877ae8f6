"""Copies the log's closed periods into files, one each (`archive_file.py`). The topics stay as they are.

Reads the topics, the blobs and the key in the data directory; writes the files of an archive, each by renaming. Files
that are there are judged and passed over, so a stop at any moment loses nothing: the same command continues.

A period ends with the records that its checkpoint was made of, and with what the decisions among these were made of in
turn. So the files up to any period are a log of their own, without the time after it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.infra.log.archive_file import FORMAT, Entry, Judge, PeriodHead, encode, file_name, files_in
from coordinator.infra.log.copy_file import Copied, CopiedBlob, Tail, framed
from coordinator.infra.whole_file import writing_whole
from coordinator.streams.events import Blob, CheckpointOpened, CheckpointPaid, CheckpointWithheld
from coordinator.streams.evidence.bundle import LOG_TOPICS
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.large_answers import blobs_of
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import BlobLostError, LogError, OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.ports import BlobReader
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS

UPSTREAM_LAST = ("checkpoints", "snapshots", "scores", "predictions", "models", "inputs", "feeds")
OnProgress = Callable[[int, int], None]


class RecordSource(Protocol):
    """The topics of one crunch."""

    birth_id: str

    async def ends(self) -> dict[str, int]:
        """Topic -> the offset after its last record."""
        ...

    def records(self, topic: str, start: int, end: int) -> AsyncIterator[Copied]:
        """The records of a topic from `start` up to `end`, none left out. Raises LogError, WorldError."""
        ...


class Archived(msgspec.Struct, frozen=True):
    """What an archive holds now. `open_checkpoint`: the first one that is not paid yet; "" if all wanted ones are."""

    files: int
    written: int
    records: int
    open_checkpoint: str = ""
    first_end_ms: int | None = None
    """When the period of the first checkpoint ends."""


class _Period(msgspec.Struct, frozen=True):
    batch: Batch
    ends: dict[str, int]


class _LogRead(msgspec.Struct):
    """What one reading of the log says: the rows of the tree, what each decision was made of, and what was paid."""

    rows: RowsInMemory
    made_of: dict[str, list[tuple[int, dict[str, int]]]]
    """Topic -> (offset, driver -> how many of its records), in order."""
    paid: set[str]
    ended_at: dict[str, int]
    """Checkpoint -> the end of its period, in ms."""
    blobs: list[tuple[str, int, Blob]]
    """(topic, offset of the decision, what it names)."""


async def write_archive(
    settings: Settings,
    source: RecordSource,
    folder: Path,
    until: str | int,
    blobs: BlobReader,
    on_progress: OnProgress,
) -> Archived:
    """Archive the paid periods up to a checkpoint's id, or that ended up to a time (ms), into a folder that is there.
    Raises OperatorError, LogError, WorldError.
    """
    judge, count = Judge(), 0
    for path in files_in(folder):
        for _ in judge.read(path):
            pass
        count += 1
    head = judge.head
    if head is not None and (head.crunch_id, head.birth_id) != (settings.crunch_id, source.birth_id):
        raise OperatorError(
            f"{folder} holds the archive of another log, of crunch {head.crunch_id}: give another folder"
        )
    ends = await source.ends()
    log_read = await _read(source, ends, on_progress)
    files = TreeFiles(settings.data_dir, signing_keys(settings))
    while (pending := files.next(log_read.rows)) is not None:
        files.keep(*pending)
    first_key = str(signing_keys(settings).first.verifier)
    wanted, open_checkpoint = _wanted(list(files.batches())[::-1], log_read, until)
    written = records = 0
    starts = head.ends if head is not None else dict.fromkeys(TOPICS, 0)
    for period in _periods(wanted, log_read, ends):
        if period.batch.number <= count:
            continue
        head = PeriodHead(
            *(FORMAT, settings.crunch_id, source.birth_id, period.batch.number, period.batch.checkpoint_ids),
            *(judge.digest, starts, period.ends, files.note(period.batch), first_key),
        )
        named = {
            blob.sha256: blob
            for topic, offset, blob in log_read.blobs
            if starts[topic] <= offset < period.ends[topic]
        }
        records += await _write(folder, head, source, named, blobs)
        for _ in judge.read(folder / file_name(head.number)):  # what is on disk is proven, not what was meant
            pass
        starts, written = period.ends, written + 1
        on_progress(written, len(wanted) - count)
    first_end_ms = min(log_read.ended_at.values(), default=None)
    return Archived(max(count, count + written), written, records, open_checkpoint, first_end_ms)


async def _read(source: RecordSource, ends: dict[str, int], on_progress: OnProgress) -> _LogRead:
    log_read = _LogRead(RowsInMemory(), {topic: [] for topic in LEAF_TOPICS}, set(), {}, [])
    done, total = 0, sum(ends[topic] for topic in LOG_TOPICS)
    for topic in LOG_TOPICS:
        counter = counter_for(topic)
        async for record in source.records(topic, 0, ends[topic]):
            done += 1
            if done % 1000 == 0:
                on_progress(done, total)
            decision = counter.read(record.offset, record.value)
            if decision is None:
                continue
            log_read.blobs += ((topic, decision.offset, blob) for blob in blobs_of(decision))
            if topic not in LEAF_TOPICS:
                continue
            log_read.rows.add(decision)
            made_of = {driver: position[0] + 1 for driver, position in decision.upto.items()}
            log_read.made_of[topic].append((decision.offset, made_of))
            if topic == "checkpoints":
                _take_checkpoints(decision, log_read)
    return log_read


def _take_checkpoints(decision: Decision, log_read: _LogRead) -> None:
    for event in decision.events:
        match event:
            case CheckpointOpened(data=data):
                log_read.ended_at[data.checkpoint_id] = data.period_end
            case CheckpointWithheld(data=withheld):
                log_read.ended_at[withheld.checkpoint.checkpoint_id] = withheld.checkpoint.period_end
            case CheckpointPaid(data=advanced):
                log_read.paid.add(advanced.checkpoint_id)
            case _:
                pass


def _wanted(batches: list[Batch], log_read: _LogRead, until: str | int) -> tuple[list[Batch], str]:
    """The batches to archive, and the first checkpoint among the wanted ones that is not paid."""
    if isinstance(until, str) and until not in log_read.ended_at:
        raise OperatorError(
            f"the topics have no checkpoint {until} (`coordinator checkpoint list` names them)"
        )
    last_ms = log_read.ended_at[until] if isinstance(until, str) else until
    wanted: list[Batch] = []
    for batch in batches:
        for checkpoint_id in batch.checkpoint_ids:
            if log_read.ended_at[checkpoint_id] > last_ms:
                return wanted, ""
            if checkpoint_id not in log_read.paid:
                return wanted, checkpoint_id
        wanted.append(batch)
    return wanted, ""


def _periods(batches: list[Batch], log_read: _LogRead, ends_now: dict[str, int]) -> list[_Period]:
    """Where each period ends in each topic: never before the period before it."""
    periods: list[_Period] = []
    ends = dict.fromkeys(TOPICS, 1)  # the birth records
    places = dict.fromkeys(LEAF_TOPICS, 0)
    for batch in batches:
        ends = dict(ends)
        for topic in UPSTREAM_LAST:
            ends[topic] = max(ends[topic], batch.runs[topic].end + 1)
            made_of = log_read.made_of[topic]
            while places[topic] < len(made_of) and made_of[places[topic]][0] < ends[topic]:
                for driver, count in made_of[places[topic]][1].items():
                    ends[driver] = max(ends[driver], count)
                places[topic] += 1
            # A decision of several parts is whole or not there.
            ends[topic] = max(ends[topic], made_of[places[topic] - 1][0] + 1 if places[topic] else 0)
        periods.append(_Period(batch, ends))
    if short := [topic for period in periods for topic in TOPICS if period.ends[topic] > ends_now[topic]]:
        raise LogError(
            f"topic {short[0]} has fewer records than were already used: it was cut. Restore it first"
        )
    return periods


async def _write(
    folder: Path, head: PeriodHead, source: RecordSource, named: Mapping[str, Blob], blobs: BlobReader
) -> int:
    """Write one file, whole or not at all; returns the number of its records."""
    path = folder / file_name(head.number)
    with writing_whole(path) as out, gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as file:
        writer = _Writer(file)
        writer.put(head)
        for topic in TOPICS:
            async for record in source.records(topic, head.starts[topic], head.ends[topic]):
                writer.put(record)
        records, lost = writer.count, list[str]()
        for blob in named.values():
            try:
                writer.put(CopiedBlob(await asyncio.to_thread(blobs.read, blob)))
            except BlobLostError as error:
                lost.append(str(error))
        writer.put(Tail(writer.count, writer.digest.hexdigest(), writer.count - records, lost))
    return records


class _Writer:
    """Writes entries, and counts and hashes what was written."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def put(self, entry: Entry) -> None:
        """Write the next entry."""
        encoded = encode(entry)
        self._file.write(framed(encoded))
        self.digest.update(encoded)
        self.count += not isinstance(entry, PeriodHead)
