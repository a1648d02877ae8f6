"""The files of an archive: one for each closed period, with every record that the topics gained in it, byte for byte.

A file is, as a backup is, a gzip stream of length-prefixed MessagePack: a head, records, the blobs that they name, a
tail with their number and sha256. The heads make a chain: each names the tail before it, and where each topic
continues. An archive can be checked by itself: the tree over the log is computed from its records, and its root must be
in the note that the node signed for the period. So no byte of what counts can be altered without the node's key.

Reads files; writes nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from coordinator.infra.log.copy_file import DAMAGED, Copied, CopiedBlob, Tail, read_framed
from coordinator.streams.evidence.extent import Batch, entries_of, next_batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.merkle import root
from coordinator.streams.evidence.notes import Note
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tiles import grown, subtrees_of
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.signing.note_keys import NoteError, VerifierKey
from coordinator.streams.signing.rotation import in_force
from coordinator.streams.topology import TOPICS

FORMAT = "coordinator-archive/1"
_NAME = re.compile(r"([0-9]{6})\.period")
_AGAIN = "take the file from another copy, or remove it and those behind it and run `coordinator log archive` again"


class PeriodHead(msgspec.Struct, frozen=True, tag="period"):
    """What a file holds: of each topic the records from `starts` up to `ends`."""

    format: str
    crunch_id: str
    birth_id: str
    number: int
    checkpoint_ids: list[str]
    before: str
    """The sha256 in the tail of the file before it; "" in the first."""
    starts: dict[str, int]
    ends: dict[str, int]
    note: bytes
    """The node's signed note of the tree that ends with this period."""
    key: str
    """The node's public key at the log's beginning, by its own word."""


Entry = PeriodHead | Copied | CopiedBlob | Tail
encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Entry)


def file_name(number: int) -> str:
    """The name of a period's file."""
    return f"{number:06}.period"


def files_in(folder: Path) -> list[Path]:
    """The files of an archive in order. Raises OperatorError: no folder, LogError: one is missing."""
    if not folder.is_dir():
        raise OperatorError(f"there is no folder {folder}")
    files = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for number, path in enumerate(files, start=1):
        if path.name != file_name(number):
            raise LogError(f"{folder / file_name(number)} is missing: {_AGAIN}")
    return files


class Judge:
    """Reads the files of an archive one after another, and checks that each continues where the one before it
    ended.
    """

    def __init__(self) -> None:
        self.head: PeriodHead | None = None
        """The head of the last file that was read."""
        self.digest = ""
        """The sha256 in its tail."""
        self.batch: Batch | None = None
        """What its period added to the tree."""
        self._rows = RowsInMemory()
        self._counters = {topic: counter_for(topic) for topic in TOPICS}
        self._tiles: dict[str, bytes] = {}

    def read(self, path: Path) -> Iterator[Copied | CopiedBlob]:
        """The records and blobs of the next file; it is whole and proven once the last was given. Raises LogError."""
        try:
            with path.open("rb") as file:
                # The sum of the stream is at its end. Without it, a damaged record would be read as one of a newer
                # version, or as a wrong one, before the damage is found.
                for _ in read_framed(file):
                    pass
                file.seek(0)
                yield from self._read(path, map(_decoder.decode, read_framed(file)))
        except DAMAGED as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise OperatorError(f"{path} cannot be read: {error.strerror or error}") from error
            raise LogError(f"{path} was cut or damaged ({error}): {_AGAIN}") from error

    def _read(self, path: Path, entries: Iterator[Entry]) -> Iterator[Copied | CopiedBlob]:
        head = next(entries, None)
        if not isinstance(head, PeriodHead) or head.format != FORMAT:
            raise LogError(f"{path} is not a file of an archive that this version reads: {_AGAIN}")
        self._check_chain(path, head)
        digest, places = hashlib.sha256(encode(head)), dict(head.starts)
        for count, entry in enumerate(entries):
            if isinstance(entry, Tail):
                if (entry.records, entry.sha256) != (count, digest.hexdigest()) or places != head.ends:
                    raise LogError(
                        f"{path} was altered: its records are not those that were archived; {_AGAIN}"
                    )
                if next(entries, None) is not None:
                    break
                self._prove(path, head)
                self.head, self.digest = head, entry.sha256
                return
            if isinstance(entry, PeriodHead):
                break
            digest.update(encode(entry))
            if isinstance(entry, Copied):
                if entry.offset != places.get(entry.topic):
                    raise LogError(
                        f"{path} lacks the record {entry.topic}:{places.get(entry.topic)}; {_AGAIN}"
                    )
                places[entry.topic] += 1
                decision = self._counters[entry.topic].read(entry.offset, entry.value)
                if decision is not None and entry.topic in LEAF_TOPICS:
                    self._rows.add(decision)
            yield entry
        raise LogError(f"{path} was cut or damaged: it does not end with its tail; {_AGAIN}")

    def _check_chain(self, path: Path, head: PeriodHead) -> None:
        last = self.head
        starts = last.ends if last is not None else dict.fromkeys(TOPICS, 0)
        whose = (head.crunch_id, head.birth_id, head.key)
        of_last = whose if last is None else (last.crunch_id, last.birth_id, last.key)
        number = 1 if last is None else last.number + 1
        if (head.number, head.before, head.starts, whose) != (number, self.digest, starts, of_last):
            raise LogError(f"{path} does not continue where the file before it ended: {_AGAIN}")

    def _prove(self, path: Path, head: PeriodHead) -> None:
        """The tree of the records must be the one that was signed."""
        batch = next_batch(self._rows, self.batch)
        if batch is None or batch.checkpoint_ids != head.checkpoint_ids:
            raise LogError(
                f"{path} lacks records that {', '.join(head.checkpoint_ids)} was made of: {_AGAIN}"
            )
        self._tiles.update(
            grown(self._tiles.__getitem__, batch.first, list(entries_of(self._rows, self.batch, batch)))
        )
        self.batch = batch
        try:
            note = Note.parse(head.note)
            key = VerifierKey.parse(in_force(head.key, batch.key_successors))
            signed = note.signed_by([key])
        except NoteError as error:
            raise LogError(f"{path} holds a note that cannot be read ({error}): {_AGAIN}") from error
        tree = (batch.size, root(subtrees_of(self._tiles.__getitem__, batch.size), batch.size))
        if not signed or (note.checkpoint.size, note.checkpoint.root) != tree:
            raise LogError(f"{path} was altered: the node has not signed these records; {_AGAIN}")
