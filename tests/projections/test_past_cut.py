"""A past that is cut: what remains is unchanged to the byte, what is gone is refused, a crash at any step loses
nothing, and the hashes are those of a node that cuts nothing.
"""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import pytest
from tests.explained import explained
from tests.first_of import first_of
from tests.logs import HOUR_MS, LogBuilder, fold_into, folded
from tests.projections import test_explaining, test_explaining_snapshots
from tests.projections.test_as_of import answers, late_log, moments, rows
from tests.streams.build import DEFAULT
from tests.waiting import looks

from coordinator.projections.folding.as_of import (
    Cut,
    PastReadModels,
    check_cuts,
    cuts_at,
    folded_until,
    horizon_of,
)
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.past_cutter import PastCutter, horizon_ms_of
from coordinator.projections.folding.past_held import PastCutError
from coordinator.projections.storage import past_cut
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.storage.past_cut import Cutting, Horizon, horizon_at
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.durations import DAY_MS
from coordinator.streams.events import Window
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need

PAST_DAYS = 5


def copied(live, to):
    """A copy as after a kill. RocksDB makes and deletes files meanwhile: the copy is of one moment if the same files were
    there before it and after it. Otherwise it begins again.
    """
    while True:
        try:
            before = sizes(live)
            shutil.copytree(live, to)
            if sizes(live) == before:
                return to
        except (shutil.Error, FileNotFoundError):
            pass
        shutil.rmtree(to, ignore_errors=True)


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


JITTER_MS = 4 * HOUR_MS
"""The events of a `late_log` are known up to three hours before their time: this much after the horizon is complete."""


def all_of(cutter: PastCutter) -> int:
    """Cuts until nothing is left to cut. Returns the number of steps."""
    steps = 0
    while cutter.step():
        steps += 1
    return steps


def whole(read) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every key and value of each store with a past, without the record of positions and notes."""
    return {
        projection.name: [
            (key, value)
            for key, value in projection.store.database.items(b"", backwards=False)
            if key != b"m"
        ]
        for projection in read.all()
        if projection.keeps_past
    }


def of_now(read) -> dict[str, dict[bytes, bytes]]:
    return {projection.name: dict(rows(projection)) for projection in read.all()}


def leaving(before, after) -> dict[str, set[bytes]]:
    """Read model -> the keys of the rows that were removed. The other rows are unchanged."""
    for name, own in after.items():
        assert own.items() <= before[name].items()
    return {name: own.keys() - after[name].keys() for name, own in before.items()}


def views_at(read, until, start=0, left=None):
    """The answers as of a time about `start` and later, and the rows of that time without the removed ones."""
    past = PastReadModels(read, cuts_at(read, until, folded_until(read)))
    gone = left or {}
    return answers(past, start), [
        (
            [(key, row) for key, row in rows(projection) if key not in gone.get(projection.name, ())],
            projection.store.state_hash,
        )
        for projection in past.all()
    ]


@pytest.mark.parametrize("seed", first_of(1, range(3)))
def test_from_the_horizon_on_the_past_is_unchanged_and_before_it_is_refused(tmp_path, seed):
    log, rng = late_log(seed, comes_back=False), random.Random(seed)
    read = folded(log, tmp_path)
    hashes, all_rows = (
        {projection.name: projection.store.state_hash for projection in read.all()},
        of_now(read),
    )
    horizon_ms = horizon_ms_of(read, PAST_DAYS, ())
    cut = crashed(read, tmp_path / "cut", log)
    all_of(PastCutter(cut, PAST_DAYS))
    left, start = leaving(all_rows, of_now(cut)), horizon_ms + JITTER_MS
    assert {name: {key[:1] for key in keys} for name, keys in left.items() if keys} == {
        "leaderboard": {b"W"},
        "predictions": {b"A", b"I", b"O", b"R", b"S", b"X"},
        "feeds": {b"R"},
        "snapshots": {b"C", b"S"},
    }
    cut.close()
    late, early = [], []
    for moment in moments(log):
        (late if moment >= horizon_ms else early).append(moment)
    asked = [horizon_ms, *rng.sample(late, 25)]
    before = {until: views_at(read, until, start, left) for until in asked}
    last_cuts = cuts_at(read, horizon_ms, folded_until(read))

    cutter = PastCutter(read, PAST_DAYS)
    assert all_of(cutter)
    assert sum(cutter.deleted.values()) > 500

    assert horizon_of(read).from_ms == horizon_ms
    assert {until: views_at(read, until, start, left) for until in asked} == before
    check_cuts(read, last_cuts, folded_until(read))
    for until in [horizon_ms - 1, *rng.sample(early, 10)]:
        with pytest.raises(PastCutError, match=r"from 2023-03-\d\dT00:00Z on .*this moment is before it"):
            cuts_at(read, until, folded_until(read))
    with pytest.raises(PastCutError, match=f"scores:{last_cuts['scores'].offset - 9} is before it"):
        check_cuts(read, {"scores": Cut(last_cuts["scores"].offset - 9)}, folded_until(read))
    assert leaving(all_rows, of_now(read)) == left
    assert {projection.name: projection.store.state_hash for projection in read.all()} == hashes
    assert all(projection.store.recompute_hash() == projection.store.state_hash for projection in read.all())
    assert all_of(PastCutter(read, PAST_DAYS)) == 0  # a second cut has nothing to do
    read.close()


def test_the_cut_depends_on_the_log_and_not_on_how_it_was_read(tmp_path, monkeypatch):
    """A node that cut each day as it came, and one that was rebuilt from the log, have the same bytes."""
    log, rng = late_log(7, comes_back=False), random.Random(7)
    monkeypatch.setattr(past_cut, "KEYS_PER_STEP", 60)
    at_once = folded(log, tmp_path / "at-once")
    all_of(PastCutter(at_once, PAST_DAYS))
    order = [topic for topic in log.records if topic != "commands" for _ in log.records[topic]]
    rng.shuffle(order)
    live = open_read_models(tmp_path / "live", "cluster", log.crunch_id)
    folder, cutter, steps = Folder(live.all()), PastCutter(live, PAST_DAYS), 0
    while order:
        fold_into(folder, log, order[:40], commit_every=rng.randint(1, 30))
        del order[:40]
        steps += sum(cutter.step(set(order)) for _ in range(rng.randint(0, 3)))
    assert steps > 3
    all_of(cutter)
    all_of(
        PastCutter(live, PAST_DAYS - 1)
    )  # once more to the end, because a topic may have been read later than the feed
    all_of(PastCutter(at_once, PAST_DAYS - 1))
    assert whole(live) == whole(at_once)
    assert sum(cutter.deleted.values()) > 500
    fresh = folded(log, tmp_path / "fresh")
    assert all(map(leaving(of_now(fresh), of_now(live)).get, ("predictions", "feeds", "snapshots")))
    for cut, new in zip(live.all(), fresh.all(), strict=True):
        assert (
            not cut.keeps_past or cut.store.state_hash == new.store.state_hash == cut.store.recompute_hash()
        )
    for read in (live, at_once, fresh):
        read.close()


def test_a_crash_at_any_step_of_a_cut_leaves_what_the_horizon_promises(tmp_path, monkeypatch):
    """Every place where a cut can be interrupted: between the stores' horizons, and after each write."""
    monkeypatch.setattr(past_cut, "KEYS_PER_STEP", 50)
    log = LogBuilder()
    log.terms(windows=[Window(name="score_recent", hours=24)])
    log.model("m1")
    log.model("m2")
    for hour in range(60):
        log.round(hour * HOUR_MS, {"m1": 0.5, "m2": hour / 100})
        log.record(log_at(hour))
        log.tick(log_at(hour) + HOUR_MS)
        log.inputs_until((hour + 1) * HOUR_MS)
        log.scored_until((hour + 1) * HOUR_MS)
    read = folded(log, tmp_path / "node")
    until = log_at(60)
    first = horizon_ms_of(read, 1, ())
    cut = crashed(read, tmp_path / "cut", log)
    all_of(PastCutter(cut, 1))
    left = leaving(of_now(read), of_now(cut))
    cut.close()
    assert len(left["predictions"]) > 100
    start = first + 1  # rows that end with the horizon were known by then and are removed
    expected, at_first = views_at(read, until, start, left), views_at(read, first, start, left)

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
    assert in_all > 20
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
        assert views_at(again, until, start, left) == expected
        assert views_at(again, first, start, left) == at_first
        assert all(
            projection.store.recompute_hash() == projection.store.state_hash for projection in again.all()
        )
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
    """The stores after kill -9: what was written, opened by another process."""
    shutil.rmtree(folder, ignore_errors=True)
    for projection in read.all():
        copied(projection.store.path, folder / "projections" / projection.name)
    return open_read_models(folder, "cluster", log.crunch_id)


def test_an_interrupted_cut_is_finished_even_without_the_setting(tmp_path, monkeypatch):
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


def test_the_whole_past_is_kept_without_the_setting_and_while_the_log_is_younger(tmp_path):
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
def test_a_figure_is_explained_as_before_or_refused_or_explained_with_what_is_missing(
    tmp_path, request, scene
):
    """Wherever the horizon is, no figure is called different because rows that it depends on were removed."""
    log, contracts = SCENES[scene](request)
    node = explained(log, tmp_path, contracts)
    figures = list(explanations(node))[::2]
    before = [explain(node.read) for explain in figures]
    assert len(before) > 100
    ends = sorted(
        {row.resolvable_at for row in node.read.predictions.newest(0, 1 << 50) if row.resolvable_at}
    )
    same, refused = 0, 0
    for from_ms in (ends[len(ends) // 8], ends[-1] + DAY_MS):
        for projection in node.read.all():
            if projection.keeps_past:
                store = projection.store
                positions = {topic: store.positions.get(topic, Need()).offset for topic in projection.topics}
                store.begin_cut(horizon_at(store.database, from_ms, positions, store.horizon))
                cutting = Cutting(store.database, store.horizon, projection)
                while cutting.step():
                    pass
                store.horizon = cutting.horizon
                assert store.recompute_hash() == store.state_hash
        for explain, whole_answer in zip(figures, before, strict=True):
            try:
                answer = explain(node.read)
            except PastCutError:
                refused += 1
                continue
            same += answer == whole_answer
            assert answer == whole_answer or (answer.agrees is not False and "(PAST_DAYS)" in repr(answer)), (
                answer
            )
    assert refused > 100
    assert same or ends[-1] - ends[0] < 2 * HOUR_MS  # a model may be shown the whole of such a short log
    node.read.close()


def explanations(node):
    """How each figure is explained from the read models."""
    far, explainer = 1 << 50, node.explainer
    for row in node.read.predictions.newest(0, far):
        name = f"{row.input_id}/{row.scope_key}/{row.model_id}"
        yield partial(explainer.prediction, prediction_id=name)
    for _, data in node.read.snapshots.newest(0, far):
        yield partial(
            lambda read, data: explainer.snapshot(read, data.model_id, data.period_start), data=data
        )
    for row in node.read.checkpoints.newest():
        for entry in row.checkpoint.ranking:
            yield partial(
                explainer.share,
                checkpoint_id=row.checkpoint.checkpoint_id,
                model_id=entry.model_id,
            )
    for row in node.read.leaderboard.board().rows:
        yield partial(lambda read, row: explainer.place(read, row.model.model_id, ""), row=row)


class Board:
    leaving = ()

    def owner(self, _key):
        return "scores"

    def is_explained(self, _key):
        return False


def test_the_disk_space_is_freed(tmp_path):
    """Half of a store is its past. After the cut the files shrink, without a request to RocksDB to compact."""
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
    cutting = Cutting(store.database, store.horizon, Board())
    while cutting.step():
        pass
    assert cutting.deleted == 100 * (rounds - 11)
    for _ in looks(state_text=lambda: f"{store.bytes_on_disk()} of {before} bytes are left"):
        if store.bytes_on_disk() < before / 5:
            break
    store.close()
