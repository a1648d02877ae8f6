"""A damaged read model is set aside with its reason and rebuilt, whichever file is damaged. It is never mistaken for a
lock.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from rocksdict import Rdict
from tests.projections.test_past_cut import copied

from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.database import StoreDamagedError, judged
from coordinator.projections.storage.store import Identity, Store
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError, WorldError

WHOSE = Identity("cluster", "btc-up", 1)
ROWS = 3000


def filled(path: Path) -> Store:
    """A store of three files."""
    store, chance = Store.open(path, WHOSE), random.Random(1)
    for part in range(3):
        batch = Batch(store, keeps_past=False)
        for number in range(ROWS):
            batch.put(b"A%06d" % (part * ROWS + number), chance.randbytes(100))
        store.commit(batch, {"scores": Need(part + 1)}, {})
        store.database.flush()
    return store


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 5] ^= 0x40
    file.write_bytes(content)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


HARMS = {
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "gone": Path.unlink,
    "not readable": a_folder,
    "a byte flipped": flipped,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    "file", ["*.sst", "CURRENT", "MANIFEST-*", "OPTIONS-*", "IDENTITY", "rocksdict-config.json"]
)
def test_a_store_with_a_damaged_file_opens_and_contains_what_its_positions_say(tmp_path, file, harm):
    path = tmp_path / "board"
    filled(path).close()
    HARMS[harm](min(path.glob(file)))
    for _ in range(2):  # damage that is found only on reading ends this life and is repaired in the next
        store = Store.open(path, WHOSE)
        try:
            rows = sum(1 for _ in store.scan(b"A"))
        except StoreDamagedError:
            store.close()
            continue
        break
    assert rows == ROWS * store.positions.get("scores", Need()).offset
    if not rows:
        assert "set aside" in store.set_aside
        assert (tmp_path / "board.damaged" / "REASON").read_text().strip()
    store.close()


@pytest.mark.parametrize("backwards", [False, True])
def test_rows_behind_a_damaged_block_are_never_silently_missing(tmp_path, backwards):
    path = tmp_path / "board"
    filled(path).close()
    flipped(min(path.glob("*.sst")))
    store = Store.open(path, WHOSE)
    with pytest.raises(StoreDamagedError, match="checksum"):
        list(store.scan(b"A", backwards=backwards))
    assert "checksum" in store.damage
    store.close()
    again = Store.open(path, WHOSE)
    assert (again.damage, dict(again.positions)) == ("", {})
    assert "checksum" in again.set_aside
    again.close()
    once_more = Store.open(path, WHOSE)  # repaired for good: no loop
    once_more.close()


def test_a_file_in_the_place_of_a_store_is_damage_too(tmp_path):
    (tmp_path / "board").write_text("no folder")
    Store.open(tmp_path / "board", WHOSE).close()


def test_errors_of_rocksdb_are_classified_by_what_must_be_done():
    path = Path("board")
    checksum = judged(path, Exception("Corruption: b-lock checksum mismatch in 000011.sst"))
    assert isinstance(checksum, StoreDamagedError)
    held = judged(path, Exception("IO error: While lock file: board/LOCK: Resource temporarily unavailable"))
    assert isinstance(held, OperatorError)
    full = judged(path, Exception("IO error: No space left on device: While appending to file: 000012.log"))
    assert isinstance(full, WorldError)
    assert "the disk of board is full" in str(full)
    assert isinstance(judged(path, Exception("IO error: x: Too many open files")), OperatorError)


def test_a_store_that_another_process_uses_is_not_set_aside(tmp_path):
    path = tmp_path / "board"
    store = filled(path)
    with pytest.raises(OperatorError, match="open in another process"):
        Store.open(path, WHOSE)
    with pytest.raises(Exception, match="lock"):
        Rdict(str(path))
    assert not (tmp_path / "board.damaged").exists()
    store.close()


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("flushed", [0, 2])
def test_a_damaged_write_ahead_log_loses_whole_commits_or_all_but_never_rows_alone(tmp_path, harm, flushed):
    living, killed = tmp_path / "living", tmp_path / "board"
    store, chance = Store.open(living, WHOSE), random.Random(1)
    for part in range(5):
        batch = Batch(store, keeps_past=False)
        for number in range(100):
            batch.put(b"A%06d" % (part * 100 + number), chance.randbytes(100))
        store.commit(batch, {"scores": Need(part + 1)}, {})
        if part + 1 == flushed:
            store.database.flush()
    copied(living, killed)  # as after kill -9: the latest commits are in the write-ahead log alone
    store.close()
    logs = [file for file in killed.glob("*.log") if file.stat().st_size]
    assert logs
    HARMS[harm](max(logs))
    again = Store.open(killed, WHOSE)
    assert sum(1 for _ in again.scan(b"A")) == 100 * again.positions.get("scores", Need()).offset
    again.close()


def test_what_rocksdb_writes_of_itself_is_bounded(tmp_path):
    """By default it dumps counts into one growing file every ten minutes: half a megabyte a store and day."""
    store = Store.open(tmp_path / "board", Identity("cluster", "btc-up", 1))
    (options,) = store.path.glob("OPTIONS-*")
    in_force = dict(line.strip().split("=", 1) for line in options.read_text().splitlines() if "=" in line)
    assert in_force["stats_dump_period_sec"] == "0"
    assert 0 < int(in_force["max_log_file_size"]) <= 256 * 1024
    assert in_force["keep_log_file_num"] == "2"
    store.close()
