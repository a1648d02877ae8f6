"""The same log leads to the same bytes: read twice, in any interleaving, after any kill. One altered byte is found."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict
from tests.broker.fixed_log import fixed_log
from tests.first_of import first_of
from tests.logs import busy_log, fold_into, folded, not_folded
from tests.posted import add_questions

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.all_views import PROJECTIONS, open_projections
from coordinator.streams.log.errors import OperatorError


def hashes(projections):
    return {projection.name: projection.store.state_hash for projection in projections}


def rows(projection):
    return list(projection.store.scan(b""))


@pytest.fixture(scope="module")
def log():
    log = busy_log()
    add_questions(log, answered=False)
    return log


@pytest.fixture(scope="module")
def once(log, tmp_path_factory):
    read = folded(log, tmp_path_factory.mktemp("once"))
    yield read
    read.close()


def test_every_projection_has_rows_and_hashes_them(once):
    for projection in once.all():
        assert rows(projection), projection.name
        assert projection.store.recompute_hash() == projection.store.state_hash != "0" * 64


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), commit_every=st.integers(1, 60))
def test_any_interleaving_of_topics_leads_to_equal_bytes(log, once, seed, commit_every):
    order = [topic for topic, records in log.records.items() if topic != "commands" for _ in records]
    random.Random(seed).shuffle(order)
    with tempfile.TemporaryDirectory() as path:
        projections = open_projections(Path(path), "cluster", log.crunch_id)
        fold_into(Folder(projections), log, order, commit_every)
        for projection, expected in zip(projections, once.all(), strict=True):
            assert rows(projection) == rows(expected), projection.name
        assert hashes(projections) == hashes(once.all())
        for projection in projections:
            projection.store.close()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), commit_every=st.integers(1, 60))
def test_any_interleaving_of_the_stages_topics_leads_to_the_same_hashes(seed, commit_every):
    """The topics of the crash tests, with zombies and garbage, as on a broker after any kills."""
    whole = fixed_log("in-memory", 120)
    log = SimpleNamespace(
        records={"feeds": whole.records["feeds"], **whole.undisturbed}, crunch_id="in-memory"
    )
    in_turn = [topic for topic, records in log.records.items() if topic != "commands" for _ in records]
    shuffled = list(in_turn)
    random.Random(seed).shuffle(shuffled)
    hashes_of_runs = []
    with tempfile.TemporaryDirectory() as path:
        for order in (in_turn, shuffled):
            projections = open_projections(Path(path) / str(len(hashes_of_runs)), "cluster", log.crunch_id)
            fold_into(Folder(projections), log, order, commit_every)
            hashes_of_runs.append(hashes(projections))
            for projection in projections:
                projection.store.close()
    assert hashes_of_runs[0] == hashes_of_runs[1]
    assert hashes_of_runs[0]["leaderboard"] != "0" * 64


def test_folding_again_from_the_start_changes_nothing(log, once, tmp_path):
    shutil.rmtree(tmp_path, ignore_errors=True)
    read = folded(log, tmp_path)
    fold_into(Folder(read.all()), log)  # continues at the stored positions: nothing is left to read
    assert hashes(read.all()) == hashes(once.all())
    read.close()


@pytest.mark.parametrize("seed", first_of(3, range(6)))
def test_a_kill_between_commits_loses_and_repeats_nothing(log, once, tmp_path, seed):
    """Rows that were folded and not committed are lost with the process. The store continues from its own positions."""
    rng = random.Random(seed)
    while True:
        projections = open_projections(tmp_path, "cluster", log.crunch_id)
        folder = Folder(projections)
        left = not_folded(folder, log)
        if not left:
            break
        rng.shuffle(left)
        fold_into(folder, log, left[: rng.randint(1, 40)], commit_every=rng.randint(1, 9))
        places = {topic: reader.next_offset for topic, reader in folder.readers.items()}
        for topic in rng.sample(sorted(places), 3):  # folded, never committed
            for offset, record in list(enumerate(log.records[topic]))[places[topic] : places[topic] + 2]:
                folder.fold(topic, offset, record)
        for projection in projections:
            projection.store.close()
    assert hashes(projections) == hashes(once.all())
    for projection, expected in zip(projections, once.all(), strict=True):
        assert rows(projection) == rows(expected)
        projection.store.close()


def test_one_projection_rebuilt_alone_catches_up_with_the_others(log, once, tmp_path):
    folded(log, tmp_path).close()
    shutil.rmtree(tmp_path / "scores", ignore_errors=True)
    shutil.rmtree(tmp_path / "predictions")
    projections = open_projections(tmp_path, "cluster", log.crunch_id)
    fold_into(Folder(projections), log)
    assert hashes(projections) == hashes(once.all())
    for projection in projections:
        projection.store.close()


def test_uncounted_records_are_remembered_beside_the_rows(log, tmp_path):
    folded(log, tmp_path).close()
    projections = open_projections(tmp_path, "cluster", log.crunch_id)
    assert Folder(projections).uncounted == 1  # the garbage in `scores`
    claims = Folder(projections).claims()
    assert claims["scores"] > 0
    assert "commands" not in claims  # a topic with many writers has no claims
    for projection in projections:
        projection.store.close()


def altered(path, change):
    """Changes one row by hand, bypassing the store."""
    database = Rdict(str(path), Options(raw_mode=True))
    key = next(iter(database.keys(from_key=b"r")))
    value = database.get(key)
    change(database, key, value)
    database.close()


def flip(data, at):
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def alter_value(database, key, value):
    database.put(key, flip(value, len(value) - 1))


def alter_key(database, key, value):
    database.delete(key)
    database.put(flip(key, len(key) - 1), value)


def alter_first_byte_of_key(database, key, value):
    database.delete(key)
    database.put(flip(key, 0), value)


def drop(database, key, value):
    database.delete(key)


@pytest.mark.parametrize("change", [alter_value, alter_key, alter_first_byte_of_key, drop])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_one_altered_byte_is_found(log, tmp_path, name, change):
    folded(log, tmp_path).close()
    altered(tmp_path / name, change)
    store = Store.open_secondary(tmp_path / name)
    try:
        recomputed = store.recompute_hash()
    except StoreDamagedError:
        recomputed = "unreadable"
    assert recomputed != store.state_hash
    store.close()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_altered_positions_are_found(log, tmp_path, name):
    folded(log, tmp_path).close()
    altered(tmp_path / name, lambda database, _key, _value: database.put(b"m", flip(database.get(b"m"), 80)))
    with pytest.raises(StoreDamagedError):
        Store.open_secondary(tmp_path / name)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_byte_altered_in_the_file_itself_is_found(log, tmp_path, name):
    folded(log, tmp_path).close()
    copy = Store.open_secondary(tmp_path / name)
    expected = copy.state_hash
    copy.close()
    for table in sorted((tmp_path / name).glob("*.sst")):
        data = table.read_bytes()
        for at in range(
            20, len(data) * 3 // 4, 1000
        ):  # a block of earlier versions alone is not part of the hash
            data = flip(data, at)
        table.write_bytes(data)
    try:
        store = Store.open_secondary(tmp_path / name)
        recomputed = store.recompute_hash()
    except StoreDamagedError:
        return
    assert recomputed != expected


def test_a_store_of_another_cluster_is_rebuilt(log, tmp_path):
    folded(log, tmp_path).close()
    (board,) = open_projections(tmp_path, "another cluster", log.crunch_id, ["leaderboard"])
    assert rows(board) == []
    assert board.store.positions == {}
    board.store.close()


def test_a_damaged_store_is_rebuilt(log, tmp_path):
    folded(log, tmp_path).close()
    (tmp_path / "models" / "CURRENT").write_bytes(b"nonsense\n")
    (models,) = open_projections(tmp_path, "cluster", log.crunch_id, ["models"])
    assert rows(models) == []
    models.store.close()


def test_a_store_open_elsewhere_is_the_operators_to_close(tmp_path):
    identity = Identity("cluster", "btc-up", 1)
    store = Store.open(tmp_path, identity)
    with pytest.raises(OperatorError, match="open in another process"):
        Store.open(tmp_path, identity)
    store.close()


def test_a_reader_beside_the_writer_sees_what_is_committed(tmp_path):
    store = Store.open(tmp_path, Identity("cluster", "btc-up", 1))
    batch = Batch(store)
    batch.put(b"k", b"v")
    store.commit(batch, {}, {})
    beside = Store.open_secondary(tmp_path)
    batch.put(b"k", b"w")
    store.commit(batch, {}, {})
    assert beside.get(b"k") == b"v"
    assert beside.recompute_hash() == beside.state_hash != store.state_hash
    beside.close()
    store.close()


def test_an_unknown_projection_is_named():
    with pytest.raises(OperatorError, match="there is no projection 'bored'"):
        open_projections(Path("nowhere"), "c", "x", ["bored"])
