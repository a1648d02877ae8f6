"""The past read from the stores equals a fresh fold that stops there, to the byte, for any commits and any order.

The logs here are harder than real ones: events come up to hours late, decisions contain events of different times, and
rows are dropped, written again and refused.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder, busy_log, fold_into, folded, not_folded
from tests.posted import add_questions

from coordinator.projections.folding.as_of import (
    KEEPERS,
    Cut,
    NotInThePastError,
    PastReadModels,
    TooManyLatecomersError,
    check_cuts,
    cuts_at,
    folded_until,
)
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import ReadModels, open_projections

NO_PAST = ("dead_letters", "checks", "evidence")
LIMITED = ("leaderboard", "models", "predictions", "feeds", "snapshots", "checkpoints", "rounds")


class LateLog(LogBuilder):
    """Some decisions are known up to three hours later, or earlier, than those around them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    def append(self, topic, *events, upto=None):
        moved = []
        late = self.random.choice((0, 0, 0, 1, 60_000, 3 * HOUR_MS, -1, -60_000, -3 * HOUR_MS))
        for event in events:
            of_its_own = self.random.choice((0, 0, 0, 0, 1, -1))
            moved.append(msgspec.structs.replace(event, at=max(0, event.at + late + of_its_own)))
        super().append(topic, *moved, upto=upto)


def late_log(seed: int, *, comes_back: bool = True) -> LateLog:
    """Twelve days, so that buckets fall out of the windows, and a round that is repeated after it was closed."""
    log = LateLog(seed)
    log.terms()
    for i in range(1, 5):
        log.model(f"m{i}")
    for half_day in range(24):
        offset = half_day * 12 * HOUR_MS
        for minute in range(0, 90, 30):
            at = offset + minute * MINUTE_MS
            log.round(at, {"m1": 0.5, "m2": -0.25, "m3": "ABSENT", "m4": "FAILED"}, charges={"m3": -1})
            log.record(START_MS + at)
            log.tick(START_MS + at + MINUTE_MS)
            log.hole(START_MS + at + 2 * MINUTE_MS, START_MS + at + 5 * MINUTE_MS)
        log.hole(START_MS + offset + 65 * MINUTE_MS, START_MS + offset + 70 * MINUTE_MS, "later still")
        log.hole_closed(
            START_MS + offset,
            START_MS + offset + 40 * MINUTE_MS,
            complete=half_day % 2 == 0,
            at=START_MS + offset + HOUR_MS,
        )
        log.feed_state("reconnecting" if half_day % 3 else "connected", START_MS + offset, "status 429")
        log.inputs_until(offset + HOUR_MS)
        log.scored_until(offset + HOUR_MS)
        log.snapshot("m1", START_MS + offset, START_MS + offset + HOUR_MS)
        if half_day % 5 == 0:
            if comes_back:
                log.round(0, {"m1": 0.25})  # an answer, a score and an input that already exist
                log.snapshot("m1", START_MS, START_MS + HOUR_MS)
            log.model_left("m2", at=START_MS + offset)
            log.model("m2", at=START_MS + offset + 1, deployment_id=f"m2-d{half_day}")
    log.checkpoint(0, {"m1": 625_000_000, "m2": 375_000_000})
    log.checkpoint(6 * HOUR_MS, {"m2": 1_000_000_000}, withheld="scores do not add up")
    log.model_left("m1", at=START_MS + 11 * 24 * HOUR_MS)
    add_questions(log)
    return log


def rows(projection):
    return list(projection.store.scan(b""))


def moments(log: LogBuilder) -> list[int]:
    """Every `at` of every event, and the ms before and after it."""
    instants: set[int] = set()
    with tempfile.TemporaryDirectory() as path:
        read = ReadModels(
            **{projection.name: projection for projection in open_projections(Path(path), "c", log.crunch_id)}
        )
        folder = Folder(read.all())
        for topic in KEEPERS:
            for offset, record in enumerate(log.records[topic]):
                decision = folder.readers[topic].read(offset, record)
                if decision is not None:
                    instants.update(event.at + d for event in decision.events for d in (-1, 0, 1))
        read.close()
    return sorted(instant for instant in instants if instant >= 0)


def fresh(log, path, **bound) -> list:
    projections = open_projections(path, "cluster", log.crunch_id, LIMITED)
    fold_into(Folder(projections, **bound), log)
    return projections


def assert_same(past: Iterable, expected: Iterable) -> None:
    for view, fresh in zip(past, expected, strict=True):
        assert rows(view) == rows(fresh), view.name
        assert list(view.store.scan(b"", backwards=True)) == rows(fresh)[::-1]
        assert view.store.state_hash == fresh.store.state_hash, view.name
        for first in {key[:1] for key, _ in rows(fresh)}:
            assert list(view.store.scan(first)) == list(fresh.store.scan(first))
    for fresh in expected:
        fresh.store.close()


def answers(read, start=0) -> tuple:
    far = 1 << 62
    return (
        read.leaderboard.board(),
        list(read.leaderboard.history(start, far, None)),
        read.models.all(),
        list(read.predictions.newest(start, far)),
        list(read.predictions.oldest(start, far)),
        read.feeds.clock,
        [(row, read.feeds.gaps(row)) for row in read.feeds.all()],
        read.feeds.states(),
        [tail for tail in read.feeds.tail(7, None, None, None, None) if tail[1].ts_event >= start],
        list(read.snapshots.newest(start, far)),
        list(read.checkpoints.newest()),
        read.checkpoints.latest_offered(),
        list(read.rounds.rounds()),
        list(read.rounds.newest()),
        read.rounds.stakes(),
    )


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), commit_every=st.integers(1, 60))
def test_any_moment_equals_a_fold_that_stops_there(seed, commit_every):
    rng = random.Random(seed)
    log = late_log(seed)
    order = [topic for topic in log.records if topic != "commands" for _ in log.records[topic]]
    rng.shuffle(order)
    with tempfile.TemporaryDirectory() as path:
        live = ReadModels(
            **{
                projection.name: projection
                for projection in open_projections(Path(path) / "live", "cluster", log.crunch_id)
            }
        )
        fold_into(Folder(live.all()), log, order, commit_every)
        latecomers = 0
        for i, until in enumerate(rng.sample(moments(log), 10)):
            cuts = cuts_at(live, until, folded_until(live))
            latecomers += sum(len(cut.late) for cut in cuts.values())
            past = PastReadModels(live, cuts)
            expected = fresh(log, Path(path) / f"until-{i}", until_ms=until)
            whole = ReadModels(
                **{projection.name: projection for projection in expected} | dict.fromkeys(NO_PAST)
            )
            assert answers(past) == answers(whole)
            assert_same(past.all(), expected)
        assert latecomers  # otherwise the log was too easy to prove anything
        live.close()


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32), commit_every=st.integers(1, 60))
def test_any_cut_equals_a_fold_with_these_limits(seed, commit_every):
    rng = random.Random(seed)
    log = late_log(seed)
    with tempfile.TemporaryDirectory() as path:
        live = ReadModels(
            **{
                projection.name: projection
                for projection in open_projections(Path(path) / "live", "cluster", log.crunch_id)
            }
        )
        fold_into(Folder(live.all()), log, None, commit_every)
        for i in range(8):
            limits = {topic: rng.randint(0, len(log.records[topic])) for topic in KEEPERS}
            cuts = {topic: Cut(limit) for topic, limit in limits.items()}
            check_cuts(live, cuts, folded_until(live))
            past = PastReadModels(live, cuts)
            expected = fresh(log, Path(path) / f"cut-{i}", limits=dict.fromkeys(LIMITED, limits))
            assert_same(past.all(), expected)
        live.close()


@pytest.fixture(scope="module")
def log():
    return busy_log()


@pytest.fixture(scope="module")
def live(log, tmp_path_factory):
    read = folded(log, tmp_path_factory.mktemp("live"))
    yield read
    read.close()


def test_the_past_at_the_end_is_the_live_state(live):
    past = PastReadModels(live, cuts_at(live, 1 << 50, folded_until(live)))
    for view in past.all():
        living = getattr(live, view.name)
        assert view.store.state_hash == living.store.state_hash
        assert rows(view) == rows(living)
    assert {topic: cut.offset for topic, cut in past.cuts.items()} == folded_until(live)
    assert past.feeds.clock == live.feeds.clock


def test_before_the_log_there_is_nothing(live):
    past = PastReadModels(live, cuts_at(live, START_MS - 1, folded_until(live)))
    assert past.leaderboard.board() is None
    assert past.feeds.clock == 0
    for view in past.all():
        assert rows(view) == []
        assert view.store.state_hash == "0" * 64


def test_a_past_does_not_change_while_the_log_grows(tmp_path):
    log = busy_log()
    live = folded(log, tmp_path)
    until = START_MS + 3 * HOUR_MS
    cuts = cuts_at(live, until, folded_until(live))
    before = [(rows(view), view.store.state_hash) for view in PastReadModels(live, cuts).all()]
    half_read = iter(PastReadModels(live, cuts).predictions.newest(0, 1 << 62))
    first = next(half_read)
    for minute in range(600, 700, 10):
        log.round(minute * MINUTE_MS, {"m1": 0.5, "m2": 0.25})
    folder = Folder(live.all())
    fold_into(folder, log)
    assert [(rows(view), view.store.state_hash) for view in PastReadModels(live, cuts).all()] == before
    assert [first, *half_read] == list(PastReadModels(live, cuts).predictions.newest(0, 1 << 62))
    live.close()


def test_every_row_belongs_to_the_topic_that_wrote_it(log, tmp_path):
    """A past state cuts each row by its own topic. A row under a wrong topic would be cut at another topic's offset."""
    for topic in KEEPERS:
        projections = open_projections(tmp_path / topic, "cluster", log.crunch_id)
        order = [topic] * len(log.records[topic])
        fold_into(Folder(projections), log, order)
        for projection in projections:
            keys = [key for key, _ in rows(projection)] if projection.keeps_past else []
            assert {projection.owner(key) for key in keys} <= {topic}, projection.name
            projection.store.close()


def test_a_position_that_was_not_reached_is_refused(live):
    ends = folded_until(live)
    with pytest.raises(NotInThePastError, match="scores is folded up to"):
        check_cuts(live, {"scores": Cut(ends["scores"] + 1)}, ends)
    with pytest.raises(NotInThePastError, match="no latecomer at 3"):
        check_cuts(live, {"scores": Cut(2, (3,))}, ends)


def test_too_many_late_events_are_reported_instead_of_folded(tmp_path):
    """After one event from the far future all later events count as late, and an answer must stay bounded."""
    log = LogBuilder()
    log.terms()
    log.model("m0", at=START_MS + 10**12)
    for i in range(501):
        log.model(f"m{i}", at=START_MS + i)
    live = folded(log, tmp_path)
    ends = folded_until(live)
    assert len(cuts_at(live, START_MS + 499, ends)["models"].late) == 500
    with pytest.raises(TooManyLatecomersError, match="500 decisions of models"):
        cuts_at(live, START_MS + 500, ends)
    live.close()


def test_a_kill_between_commits_leaves_the_past_right(tmp_path):
    """Rows that were folded and not committed are lost with the process. The next one folds them again and keeps them
    once.
    """
    log, rng = late_log(5), random.Random(5)
    expected = folded(log, tmp_path / "once")
    for life in range(40):
        read = ReadModels(
            **{
                projection.name: projection
                for projection in open_projections(tmp_path / "killed", "cluster", log.crunch_id)
            }
        )
        folder = Folder(read.all())
        left = not_folded(folder, log)
        if life < 39:
            rng.shuffle(left)
            left = left[:20]
        fold_into(folder, log, left, commit_every=rng.randint(1, 9))
        for topic in ("scores", "models"):  # folded, never committed
            start = folder.readers[topic].next_offset
            for offset, record in list(enumerate(log.records[topic]))[start : start + 3]:
                folder.fold(topic, offset, record)
        if life < 39:
            read.close()
    for until in rng.sample(moments(log), 20):
        cuts = cuts_at(read, until, folded_until(read))
        assert cuts == cuts_at(expected, until, folded_until(expected))
        for killed_view, other in zip(
            PastReadModels(read, cuts).all(), PastReadModels(expected, cuts).all(), strict=True
        ):
            assert rows(killed_view) == rows(other)
            assert killed_view.store.state_hash == other.store.state_hash
    read.close()
    expected.close()


def test_a_tick_after_a_later_one_was_the_clock_at_its_time(tmp_path):
    """Found by comparing two hundred moments on a real Kafka: such a tick changes nothing when it comes, and was
    forgotten.
    """
    log = late_log(1)
    live = ReadModels(
        **{
            projection.name: projection
            for projection in open_projections(tmp_path / "live", "cluster", log.crunch_id)
        }
    )
    fold_into(Folder(live.all()), log)
    ends = folded_until(live)
    for i, until in enumerate(random.Random(1).sample(moments(log), 60)):
        then = open_projections(tmp_path / f"then-{i}", "cluster", log.crunch_id, ["feeds"])
        fold_into(Folder(then, until_ms=until), log)
        past = PastReadModels(live, cuts_at(live, until, ends))
        assert past.feeds.clock == then[0].clock, until
        then[0].store.close()
    live.close()
