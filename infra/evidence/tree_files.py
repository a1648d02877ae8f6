"""The tree as files in `<data_dir>/evidence`: tiles, and for each batch a signed note and a file that describes it.

Reads the rows of the log's decisions; writes first the tiles, then the note, then the file of the batch, each by
renaming. So a process that is killed leaves nothing half done, and the next one writes the same bytes again.
Everything except the key can be made again from the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from coordinator.infra.evidence.signing_keys import FOLDER, Keys, publish
from coordinator.infra.whole_file import write_whole
from coordinator.streams.evidence.extent import Batch, LeafRows, entries_of, next_batch
from coordinator.streams.evidence.merkle import root
from coordinator.streams.evidence.notes import Checkpoint, signed_note
from coordinator.streams.evidence.tiles import ENTRIES, WIDTH, grown, subtrees_of, tile_path
from coordinator.streams.evidence.tiles import entries_of as entries_in
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.signing.note_keys import SignerKey

BATCHES, NOTES, LATEST = "batches", "notes", "checkpoint"


class TreeFiles:
    """The tree of one data directory. Only one process may write it; any may read."""

    def __init__(self, data_dir: Path, keys: Keys) -> None:
        self.folder = data_dir / FOLDER
        self._keys = keys
        self.last = self._newest()
        self.folder.mkdir(parents=True, exist_ok=True)
        publish(self.folder, self.key)

    @property
    def key(self) -> SignerKey:
        """The key in force at the end of the tree. Raises OperatorError if it is not held here."""
        return self.signer(self.last)

    def signer(self, batch: Batch | None) -> SignerKey:
        """The key that signs the note of the tree that ends with a batch. Raises OperatorError if it is not held."""
        return self._keys.signer(batch.key_successors if batch else {})

    def next(self, rows: LeafRows) -> tuple[Batch, list[bytes]] | None:
        """(next batch, its entries); None if its checkpoint, or something that it was made from, is not there yet.

        Raises OperatorError if the files are of another log, LeavesMissingError if rows of the next batch have left.
        """
        if self.last is not None:
            self._check_same_log(rows, self.last)
        batch = next_batch(rows, self.last)
        return None if batch is None else (batch, list(entries_of(rows, self.last, batch)))

    def keep(self, batch: Batch, entries: Sequence[bytes]) -> None:
        """Write the tiles, the note and the file of a batch that `next` returned."""
        for path, content in grown(self.tile, batch.first, entries):
            self._write(path, content)
        computed = root(subtrees_of(self.tile, batch.size), batch.size)
        key = self.signer(batch)
        note = signed_note(Checkpoint(key.verifier.name, batch.size, computed), key)
        publish(self.folder, key)
        self._write(f"{NOTES}/{batch.number}", note)
        self._write(LATEST, note)
        # Last, because this file says that all others of the batch are complete.
        self._write(f"{BATCHES}/{batch.number}.json", msgspec.json.encode(batch))
        self.last = batch

    def batches(self) -> Iterator[Batch]:
        """Every batch, the newest first."""
        for number in range(self.last.number if self.last else 0, 0, -1):
            yield self._batch(number)

    def batch_of(self, checkpoint_id: str) -> Batch | None:
        """The latest batch with this checkpoint; None if there is none."""
        return next((batch for batch in self.batches() if checkpoint_id in batch.checkpoint_ids), None)

    def note(self, batch: Batch) -> bytes:
        """The signed note of the tree that ends with this batch."""
        return (self.folder / NOTES / str(batch.number)).read_bytes()

    def index_of(self, batch: Batch, topic: str, entry: bytes) -> int:
        """The index in the tree of an entry of this batch. Raises LogError if the batch has no such entry."""
        run = batch.runs[topic]
        behind = run.first_index + run.count
        for number in range(run.first_index // WIDTH, -(-behind // WIDTH)):
            width = min(WIDTH, batch.size - number * WIDTH)
            entries = entries_in(self.tile(tile_path(ENTRIES, number, width)))
            for index, stored in enumerate(entries, start=number * WIDTH):
                if stored == entry and run.first_index <= index < behind:
                    return index
        raise LogError(f"the tree in {self.folder} does not hold an append of {topic} that the log has")

    def tile(self, path: str) -> bytes:
        """The bytes of a tile. Raises KeyError if there is no such tile."""
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise KeyError(path) from error

    def _check_same_log(self, rows: LeafRows, batch: Batch) -> None:
        row = rows.row("checkpoints", batch.offset)
        if row is None:
            return  # the log is not folded that far yet
        index = batch.index_of("checkpoints", row)
        width = min(WIDTH, batch.size - index // WIDTH * WIDTH)
        stored = entries_in(self.tile(tile_path(ENTRIES, index // WIDTH, width)))[index % WIDTH]
        if stored != row.entries[:32]:
            raise OperatorError(
                f"{self.folder} belongs to another log than the one that is read: the decision at offset "
                f"{batch.offset} of checkpoints differs. Nothing is signed, because an earlier note would "
                "prove that the past was rewritten"
            )

    def _newest(self) -> Batch | None:
        numbers = [int(path.stem) for path in (self.folder / BATCHES).glob("*.json") if path.stem.isdigit()]
        return self._batch(max(numbers)) if numbers else None

    def _batch(self, number: int) -> Batch:
        path = self.folder / BATCHES / f"{number}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Batch)
        except (OSError, msgspec.DecodeError) as error:
            raise OperatorError(
                f"{path} cannot be read ({error}): remove the folders in {self.folder}, but not the key; the node "
                "writes them again from its log"
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
