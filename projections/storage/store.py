"""The store of one projection: rows, positions and hash in one RocksDB, written in one WriteBatch.

Because of the single WriteBatch, rows and positions always match: after kill -9 the store is as some commit left it,
and the rest of the log is folded again. `state_hash` is the sum modulo 2**256 of sha256(len(key) || key || value) over
all rows. It is updated with each row, does not depend on the order of writing, and covers only the rows. Positions,
notes and the identity are in one meta record, which is not hashed. Rows that left the store (PAST_DAYS) stay in the
hash: their sum is in the record of the horizon. So the hashes of stores with and without a horizon are the same.

A store belongs to (cluster, crunch, schema). If any of them differs, the store is deleted and rebuilt from the log, and
this is logged. A damaged store is moved to `<name>.damaged` with the reason in it, and rebuilt. Damage that is found
while the store is in use is noted in a file beside it, and the next opening rebuilds the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.changes import MODULUS, Changes, row_hash
from coordinator.projections.storage.database import Database, StoreDamagedError, judged
from coordinator.projections.storage.past_cut import Horizon, put_horizon, read_horizon
from coordinator.projections.storage.versions import MARK, ROW, value_of, version_of, versions_of
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError

CACHE_BYTES = 8 * 1024 * 1024
WRITE_BUFFERS_BYTES = 16 * 1024 * 1024
WRITE_BUFFER_BYTES = 4 * 1024 * 1024
OWN_LOG_BYTES = 128 * 1024
DELETIONS = (4096, 1024, 0.25)
"""A file is compacted if 1,024 of 4,096 entries in a row are deletions, or a quarter of all."""
_META = b"m"
SET_ASIDE = ".damaged"
DAMAGE_NOTE = ".damage"
REASON = "REASON"

_log = structlog.get_logger()
# One cache and one budget of write buffers for all stores of the process: its memory must not grow with their number.
_cache = Cache(CACHE_BYTES)
_buffers = WriteBufferManager(WRITE_BUFFERS_BYTES, False)


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What a store's rows belong to. A store with another identity is rebuilt."""

    cluster_id: str
    crunch_id: str
    schema: int


class Meta(msgspec.Struct, kw_only=True):
    """The record beside the rows. `notes` are facts of a projection that are not content.

    `hash_of_topic`: topic -> its part of `state_hash`. `latest_at`: topic -> latest `at` of its events until now, in
    ms.
    """

    identity: Identity
    positions: dict[str, Need] = {}
    state_hash: str = "0" * 64
    notes: dict[str, Any] = {}
    hash_of_topic: dict[str, str] = {}
    latest_at: dict[str, int] = {}


_encode = msgspec.json.Encoder().encode
_decode_meta = msgspec.json.Decoder(Meta).decode


class Store:
    """Rows by key (bytes to bytes), in key order. One process writes; other processes open a secondary to read."""

    def __init__(self, path: Path, database: Database, meta: Meta) -> None:
        self.path = path
        self.database = database
        """The RocksDB itself, for readers of versions (`versions.py`). Only `commit` writes to it."""
        self._meta = meta
        self._hash = int(meta.state_hash, 16)
        self.horizon: Horizon | None = read_horizon(database)
        """From where on the past is held; None: all of it is."""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def open(cls, path: Path, identity: Identity) -> Self:
        """Open for writing; create or rebuild the store if needed. Raises OperatorError if another process has it."""
        note = _beside(path, DAMAGE_NOTE)
        try:
            if note.is_file():
                raise StoreDamagedError(note.read_text(encoding="utf-8", errors="replace")[:2000])
            store = cls._open(path, identity)
        except StoreDamagedError as error:
            _set_aside(path, str(error))
            return cls._rebuild(path, identity, str(error))
        if store.identity != identity:
            reason = f"it belongs to {store.identity}, not to {identity}"
            store.close()
            return cls._rebuild(path, identity, reason)
        return store

    @classmethod
    def _rebuild(cls, path: Path, identity: Identity, reason: str) -> Self:
        _log.warning("projection_rebuilt", projection=path.name, reason=reason)
        shutil.rmtree(path, ignore_errors=True)
        return cls._open(path, identity)

    @classmethod
    def _open(cls, path: Path, identity: Identity) -> Self:
        try:
            path.mkdir(parents=True, exist_ok=True)
            rocksdb = Rdict(str(path), _options())
        except FileExistsError as error:
            raise StoreDamagedError(f"{path} is not a folder") from error
        except IsADirectoryError as error:
            raise StoreDamagedError(f"{path} holds a folder in the place of a file") from error
        except OSError as error:
            raise OperatorError(f"{path} cannot be used: {error.strerror or error}") from error
        except Exception as error:  # rocksdict raises nothing finer
            raise judged(path, error) from error
        database = Database(path, rocksdb, lambda reason: _note(path, reason))
        try:
            raw = database.get(_META)
            meta = _read_meta(path, raw) if raw is not None else Meta(identity=identity)
            return cls(path, database, meta)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open_secondary(cls, path: Path) -> Self:
        """Open for reading as of now, while another process may write. Raises StoreDamagedError."""
        if not (path / "CURRENT").exists():
            raise StoreDamagedError(f"{path} holds no store")
        scratch = tempfile.TemporaryDirectory(prefix="coordinator-secondary-")
        options = _options()
        options.set_max_open_files(-1)  # keep all files open: the writer's compaction may delete them
        try:
            rocksdb = Rdict(str(path), options, access_type=AccessType.secondary(scratch.name))
            rocksdb.try_catch_up_with_primary()
            raw = rocksdb.get(_META)
        except Exception as error:  # rocksdict raises nothing finer
            scratch.cleanup()
            raise StoreDamagedError(f"{path} cannot be read: {error}") from error
        database = Database(path, rocksdb)
        if raw is None:
            database.close()
            scratch.cleanup()
            raise StoreDamagedError(
                f"{path} has no positions: nothing was folded, or its record of them is lost"
            )
        store = cls(path, database, _read_meta(path, raw))
        store._scratch = scratch
        return store

    @property
    def identity(self) -> Identity:
        """What the store's rows belong to."""
        return self._meta.identity

    @property
    def damage(self) -> str:
        """Why the store can no longer be trusted; "" while it can. Opening it again rebuilds it."""
        return self.database.damage

    @property
    def set_aside(self) -> str:
        """Where an earlier damaged store was moved, and why it was damaged; "" if there is none."""
        aside = _beside(self.path, SET_ASIDE)
        if not aside.is_dir():
            return ""
        file = aside / REASON
        reason = (
            file.read_text(encoding="utf-8", errors="replace")[:500] if file.is_file() else "no reason noted"
        )
        return f"it was damaged, set aside at {aside} and rebuilt from the log: {reason}"

    @property
    def positions(self) -> Mapping[str, Need]:
        """Topic -> where reading continues."""
        return self._meta.positions

    @property
    def notes(self) -> Mapping[str, Any]:
        """Facts beside the content, as of the last commit."""
        return self._meta.notes

    @property
    def state_hash(self) -> str:
        """64 hex digits over the rows; 64 zeros if there are none."""
        return f"{self._hash:064x}"

    def get(self, key: bytes) -> bytes | None:
        """The committed row, or None."""
        return value_of(self.database.get(ROW + key))

    def written_at(self, key: bytes) -> list[int]:
        """The offsets (in the topic that owns the row) of the decisions that wrote it, oldest first; empty if none."""
        return versions_of(self.database, key)

    def written_last_at(self, key: bytes) -> int | None:
        """The last of these. A row that each round writes has as many versions as there are rounds."""
        stored = self.database.get(ROW + key)
        return None if stored is None else version_of(stored)

    def scan(
        self, prefix: bytes, *, start: bytes | None = None, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, row) of the committed rows under `prefix` in key order, or backwards; from `start` on if given."""
        for key, stored in self.stored(prefix, start=start, backwards=backwards):
            if (row := value_of(stored)) is not None:
                yield key, row

    def stored(self, prefix: bytes, *, start: bytes | None, backwards: bool) -> Iterator[tuple[bytes, bytes]]:
        """(key, stored row) with the rows' versions, deleted rows included."""
        whole = ROW + prefix
        first = ROW + start if start is not None else (_after(whole) if backwards else whole)
        for key, stored in self.database.items(first, backwards=backwards):
            if key.startswith(whole):
                yield key[1:], stored
            elif not (backwards and key > whole):
                # Backwards, the first key may be just after the prefix. Any other key ends the scan.
                return

    def commit(self, batch: Batch, positions: Mapping[str, Need], notes: Mapping[str, Any]) -> None:
        """Write the batch's rows and their earlier versions, the positions and the hash: all or nothing."""
        write = WriteBatch(raw_mode=True)
        parts = {topic: int(text, 16) for topic, text in self._meta.hash_of_topic.items()}
        changes = Changes(self.database, write, parts, self._meta.latest_at)
        changes.add(batch)
        total = sum(changes.hash_of_topic.values()) % MODULUS
        meta = Meta(
            identity=self._meta.identity,
            positions=dict(positions),
            state_hash=f"{total:064x}",
            notes=dict(notes),
            hash_of_topic={topic: f"{part:064x}" for topic, part in changes.hash_of_topic.items()},
            latest_at=changes.latest_at,
        )
        body = _encode(meta)
        write.put(_META, hashlib.sha256(body).digest() + body)
        self.database.write(write)
        self._meta, self._hash = meta, total
        batch.clear()

    def latest_at(self, topic: str) -> int:
        """The latest time (ms) of the topic's events as of the last commit; 0 if there are none."""
        return self._meta.latest_at.get(topic, 0)

    def begin_cut(self, horizon: Horizon) -> None:
        """Say that the past before `horizon` is no longer held. Only afterwards may its versions be deleted."""
        write = WriteBatch(raw_mode=True)
        put_horizon(write, horizon)
        self.database.write(write)
        self.horizon = horizon

    def bytes_on_disk(self) -> int:
        """The size of its files."""
        size = 0
        for file in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):  # RocksDB has just replaced it
                size += file.stat().st_size
        return size

    def recompute_hash(self) -> str:
        """The state hash computed from all stored rows, and the sum of those that left. Raises StoreDamagedError for
        rows that cannot be read.
        """
        horizon = read_horizon(self.database)
        total = 0 if horizon is None else int(horizon.hash_of_left, 16)
        try:
            cursor = self.database.iter()
            cursor.seek(ROW)
            while cursor.valid():
                key = cursor.key()
                if key.startswith(MARK):
                    break
                if not key.startswith(ROW):
                    # No other kind of key sorts here: it is a key whose first byte was altered.
                    raise StoreDamagedError(f"{self.path} holds the foreign key {key!r}")
                row = value_of(cursor.value())
                if row is not None:
                    total += row_hash(key[1:], row)
                cursor.next()
        except ValueError as error:  # the value is not a stored row
            raise StoreDamagedError(f"{self.path} cannot be read: {error}") from error
        return f"{total % MODULUS:064x}"

    def close(self) -> None:
        """Write everything to disk and close the store."""
        if self._scratch is None:
            with contextlib.suppress(StoreDamagedError):  # it is noted: the next opening rebuilds the store
                self.database.flush()  # empties the write-ahead log: the next opening replays nothing
        self.database.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def _read_meta(path: Path, raw: bytes) -> Meta:
    digest, body = raw[:32], raw[32:]
    if hashlib.sha256(body).digest() != digest:
        raise StoreDamagedError(f"{path}: the record of its positions was altered")
    try:
        return _decode_meta(body)
    except msgspec.DecodeError as error:
        raise StoreDamagedError(
            f"{path}: the record of its positions is another version's: {error}"
        ) from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _note(path: Path, reason: str) -> None:
    """Note damage for the next opening, which might not find it: opening reads only a few blocks."""
    _log.error("projection_damaged", projection=path.name, reason=reason)
    with contextlib.suppress(
        OSError
    ):  # a full disk, say: the next reader of the same block finds the damage again
        _beside(path, DAMAGE_NOTE).write_text(reason, encoding="utf-8")


def _set_aside(path: Path, reason: str) -> None:
    """Move a damaged store away, so that it can be examined, and delete the one moved before. Raises OperatorError."""
    aside = _beside(path, SET_ASIDE)
    try:
        if aside.exists():
            shutil.rmtree(aside)
        if path.is_dir():
            path.rename(aside)
            (aside / REASON).write_text(reason + "\n", encoding="utf-8")
        elif path.exists():
            path.unlink()
        _beside(path, DAMAGE_NOTE).unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(
            f"{path} is damaged ({reason}) and cannot be renamed ({error.strerror}): remove it; "
            "the node rebuilds it from the log"
        ) from error


def _after(prefix: bytes) -> bytes:
    """The first key after all keys that start with `prefix`, which must not end in 0xff (no row's key does)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_write_buffer_manager(_buffers)
    options.set_max_open_files(64)
    # Its own log of what it does has no bound else, and every ten minutes gets counts that nobody reads.
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(OWN_LOG_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_max_background_jobs(2)
    # A cut of the past must give its space back: files full of deletions are compacted, in the background.
    options.add_compact_on_deletion_collector_factory(*DELETIONS)
    options.set_compression_type(DBCompressionType.lz4())
    # kill -9 may leave an incomplete last record. Damage before it must not be taken for an older state.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    table = BlockBasedOptions()
    table.set_block_cache(_cache)
    table.set_block_size(16 * 1024)
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(table)
    return options
