"""A past that is cut: what stays is what it was, to the byte, what is gone is refused, and a crash at any step loses
nothing.
"""

from __future__ import annotations

import random
import shutil

import pytest
from tests.explained import explained
from tests.logs import HOUR_MS, LogBuilder, fold_into, folded
from tests.projections import test_explaining, test_explaining_snapshots
from tests.projections.test_as_of import answers, late_log, moments, rows
from tests.streams.build import DEFAULT
from tests.waiting import looks

from coordinator.projections.folding.as_of import (
    Cut,
    PastCutError,
    PastReadModels,
    check_cuts,
    cuts_at,
    folded_until,
    horizon_of,
)
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.past_cutter import PastCutter
from coordinator.projections.storage import past_cut
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.storage.past_cut import Cutting, Horizon, horizon_at
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.durations import DAY_MS
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

PAST_DAYS = 5


def copied(live, to):
    """A copy as a kill would leave the folder. RocksDB deletes files beside us: one that goes meanwhile begins it again."""
    while True:
        try:
            return shutil.copytree(live, to)
        except shutil.Error:
            shutil.rmtree(to)


def all_of(cutter: PastCutter) -> int:
    """Cut until nothing is left to cut; returns the number of steps."""
    steps = 0
    while cutter.step():
        steps += 1
    return steps


def whole(read) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every key and value of each store that has a past, but for the record of positions and notes."""
    return {
        projection.name: [
            (key, value)
            for key, value in projection.store.database.items(b"", backwards=False)
            if key != b"m"
        ]
        for projection in read.all()
        if projection.keeps_past
    }


def views_at(read, until):
    past = PastReadModels(read, cuts_at(read, until, folded_until(read)))
    return answers(past), [(rows(view), view.store.state_hash) for view in past.all()]


@pytest.mark.parametrize("seed", range(3))
def test_from_the_horizon_on_the_past_is_what_it_was_and_before_it_is_refused(tmp_path, seed):
    log, rng = late_log(seed), random.Random(seed)
    read = folded(log, tmp_path)
    of_now = {projection.name: (projection.store.state_hash, rows(projection)) for projection in read.all()}
    horizon_ms = read.feeds.store.latest_at("feeds") // DAY_MS * DAY_MS - PAST_DAYS * DAY_MS
    late, early = [], []
    for moment in moments(log):
        (late if moment >= horizon_ms else early).append(moment)
    asked = [horizon_ms, *rng.sample(late, 25)]
    before = {until: views_at(read, until) for until in asked}
    last_cuts = cuts_at(read, horizon_ms, folded_until(read))

    cutter = PastCutter(read, PAST_DAYS)
    assert all_of(cutter)
    assert sum(cutter.deleted.values()) > 500

    assert horizon_of(read).from_ms == horizon_ms
    assert {until: views_at(read, until) for until in asked} == before
    check_cuts(read, last_cuts, folded_until(read))
    for until in [horizon_ms - 1, *rng.sample(early, 10)]:
        with pytest.raises(PastCutError, match=r"from 2023-03-\d\dT00:00Z on .*this moment is before it"):
            cuts_at(read, until, folded_until(read))
    with pytest.raises(PastCutError, match=f"scores:{last_cuts['scores'].offset - 9} is before it"):
        check_cuts(read, {"scores": Cut(last_cuts["scores"].offset - 9)}, folded_until(read))
    assert {
        projection.name: (projection.store.state_hash, rows(projection)) for projection in read.all()
    } == of_now
    assert all(projection.store.recompute_hash() == projection.store.state_hash for projection in read.all())
    assert all_of(PastCutter(read, PAST_DAYS)) == 0  # there is nothing to do twice
    read.close()


def test_what_is_cut_follows_from_the_log_however_it_was_read(tmp_path):
    """A node that cut each day as it came, and one that was made again from the log: the same bytes."""
    log, rng = late_log(7), random.Random(7)
    at_once = folded(log, tmp_path / "at-once")
    all_of(PastCutter(at_once, PAST_DAYS))
    order = [topic for topic in log.records if topic != "commands" for _ in log.records[topic]]
    rng.shuffle(order)
    live = open_read_models(tmp_path / "live", "cluster", log.crunch_id)
    folder, cutter, steps = Folder(live.all()), PastCutter(live, PAST_DAYS), 0
    while order:
        fold_into(folder, log, order[:40], commit_every=rng.randint(1, 30))
        del order[:40]
        steps += sum(cutter.step() for _ in range(rng.randint(0, 3)))
    assert steps > 20
    all_of(cutter)
    all_of(
        PastCutter(live, PAST_DAYS - 1)
    )  # once more to the end: a topic may have been read later than the feed
    all_of(PastCutter(at_once, PAST_DAYS - 1))
    assert whole(live) == whole(at_once)
    fresh = folded(log, tmp_path / "fresh")
    for cut, new in zip(live.all(), fresh.all(), strict=True):
        assert (
            not cut.keeps_past or cut.store.state_hash == new.store.state_hash == cut.store.recompute_hash()
        )
    for read in (live, at_once, fresh):
        read.close()


def test_a_crash_at_any_step_of_a_cut_leaves_what_the_horizon_says(tmp_path, monkeypatch):
    """Every place where a cut can end: between the stores' horizons, and after each write."""
    monkeypatch.setattr(past_cut, "KEYS_PER_STEP", 25)
    log = LogBuilder()
    log.terms()
    log.model("m1")
    log.model("m2")
    for hour in range(72):
        log.round(hour * HOUR_MS, {"m1": 0.5, "m2": hour / 100})
        log.record(log_at(hour))
        log.tick(log_at(hour) + HOUR_MS)
    read = folded(log, tmp_path / "node")
    until = log_at(72)
    expected = views_at(read, until)
    first = read.feeds.store.latest_at("feeds") // DAY_MS * DAY_MS - DAY_MS
    at_first = views_at(read, first)

    class KilledError(Exception):
        """The process ends here."""

    writes = 0

    def write(database, batch, after=None):
        nonlocal writes
        if writes == after:
            raise KilledError
        writes += 1
        plain(database, batch)

    plain = past_cut.Database.write
    whole_cut = crashed(read, tmp_path / "whole", log)
    monkeypatch.setattr(past_cut.Database, "write", write)
    all_of(PastCutter(whole_cut, 1))
    in_all, writes = writes, 0
    after_it = whole(whole_cut)
    whole_cut.close()
    assert in_all > 40
    for after in range(in_all):
        node = crashed(read, tmp_path / "live", log)
        monkeypatch.setattr(
            past_cut.Database, "write", lambda database, batch, after=after: write(database, batch, after)
        )
        writes = 0
        with pytest.raises(KilledError):
            all_of(PastCutter(node, 1))
        monkeypatch.setattr(past_cut.Database, "write", plain)
        again = crashed(node, tmp_path / "again", log)
        node.close()
        assert views_at(again, until) == expected
        assert views_at(again, first) == at_first
        if horizon_of(again) is not None:
            with pytest.raises(PastCutError):
                cuts_at(again, first - 1, folded_until(again))
        all_of(PastCutter(again, 1))
        assert whole(again) == after_it, after
        again.close()
    read.close()


def log_at(hour: int) -> int:
    return 1_678_406_400_000 + hour * HOUR_MS


def crashed(read, folder, log):
    """The stores as kill -9 leaves them: what was written, opened by another process."""
    shutil.rmtree(folder, ignore_errors=True)
    for projection in read.all():
        copied(projection.store.path, folder / "projections" / projection.name)
    return open_read_models(folder, "cluster", log.crunch_id)


def test_a_cut_that_was_begun_is_finished_though_the_setting_went(tmp_path, monkeypatch):
    monkeypatch.setattr(past_cut, "KEYS_PER_STEP", 60)
    log = late_log(3)
    read = folded(log, tmp_path / "node")
    cutter = PastCutter(read, PAST_DAYS)
    cutter.step()
    again = crashed(read, tmp_path / "again", log)
    assert all_of(PastCutter(again, 0)) > 5
    all_of(cutter)
    assert whole(again) == whole(read)
    again.close()
    read.close()


def test_the_whole_past_stays_without_the_setting_and_while_the_log_is_younger(tmp_path):
    log = late_log(4)
    read = folded(log, tmp_path)
    before = whole(read)
    for days in (0, 20):
        assert all_of(PastCutter(read, days)) == 0
    assert whole(read) == before
    read.close()


def test_a_horizon_that_was_altered_on_disk_is_a_damaged_store(tmp_path):
    store = Store.open(tmp_path / "board", Identity("cluster", "btc-up", 1))
    store.begin_cut(Horizon(5, {"scores": 3}))
    raw = store.database.get(b"p")
    with pytest.raises(StoreDamagedError, match="horizon was altered"):
        past_cut.read_horizon(_Altered(store.path, raw[:-1] + b"\x01"))
    assert past_cut.read_horizon(store.database) == Horizon(5, {"scores": 3})
    store.close()


class _Altered:
    def __init__(self, path, raw):
        self.path, self._raw = path, raw

    def get(self, _key):
        return self._raw


SCENES = {
    "rounds on a grid": lambda request: (request.getfixturevalue("played"), lambda _: DEFAULT),
    "posted questions": lambda request: _made(test_explaining_snapshots.asked()),
    "metrics": lambda request: _made(test_explaining_snapshots.measured()),
}


def _made(scene):
    return scene.log, scene.contracts


@pytest.fixture
def played():
    return test_explaining.engine.__wrapped__().log


@pytest.mark.parametrize("scene", SCENES)
def test_every_figure_is_explained_as_before_when_all_of_its_past_is_cut(tmp_path, request, scene):
    log, contracts = SCENES[scene](request)
    node = explained(log, tmp_path, contracts)
    before = list(explanations(node))
    deleted = 0
    for projection in node.read.all():
        if projection.keeps_past:
            store = projection.store
            ends = {topic: store.positions.get(topic, Need()).offset for topic in projection.topics}
            store.begin_cut(horizon_at(store.database, 1 << 60, ends))
            cutting = Cutting(store.database, store.horizon, projection.owner, projection.is_explained)
            while cutting.step():
                pass
            deleted += cutting.deleted
    assert deleted > 100
    assert len(before) > 100
    assert list(explanations(node)) == before
    node.read.close()


def explanations(node):
    far = 1 << 50
    for prediction in node.read.predictions.newest(0, far):
        yield node.explainer.prediction(
            node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
        )
    for _, data in node.read.snapshots.newest(0, far):
        yield node.explainer.snapshot(node.read, data.model_id, data.period_start)
    for row in node.read.checkpoints.newest():
        for entry in row.checkpoint.ranking:
            yield node.explainer.share(node.read, row.checkpoint.checkpoint_id, entry.model_id)
    board = node.read.leaderboard.board()
    for row in board.rows:
        yield node.explainer.place(node.read, row.model.model_id, "")


def test_the_disk_is_given_back(tmp_path):
    """Half of a store is its past: cut, the files shrink, without anybody asking RocksDB to compact."""
    store, chance = Store.open(tmp_path / "board", Identity("cluster", "btc-up", 1)), random.Random(1)
    rounds = 400
    for offset in range(rounds):
        batch = Batch(store)
        for number in range(100):
            batch.put(b"A%03d" % number, chance.randbytes(200))
        batch.end_of(Decision("scores", offset, offset, offset, Need(offset), {}, {}, ()))
        store.commit(batch, {"scores": Need(offset + 1)}, {})
    store.database.flush()
    before = store.bytes_on_disk()
    store.begin_cut(Horizon(0, {"scores": rounds - 10}))
    cutting = Cutting(store.database, store.horizon, lambda _: "scores", lambda _: False)
    while cutting.step():
        pass
    assert cutting.deleted == 100 * (rounds - 11)
    for _ in looks(state_text=lambda: f"{store.bytes_on_disk()} of {before} bytes are left"):
        if store.bytes_on_disk() < before / 5:
            break
    store.close()
