"""A saved run of the recorded rules: plans, shadows and corrections continue from it and decide the same."""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.first_of import first_of
from tests.streams.engine import test_correct as corrections
from tests.streams.engine.test_plan import BOUNDARY, CONTRACT, NEW, OLD, drawn, played, terms_of
from tests.streams.engine.test_shadow import follow, rules_of, seen, shadow_of

from coordinator.streams.engine import MemoryLog, Owner
from coordinator.streams.engine.plan import plan_rules
from coordinator.streams.engine.rerun import NewRules, RecordedCrunch
from coordinator.streams.engine.shadow import Shadow, begun_with
from coordinator.streams.feeds.stage import FeedStage


class Shelf:
    """The saved states, in memory. `before` and `put` are those of `SavedRuns`."""

    def __init__(self):
        self.runs = []
        self.put = self.runs.append

    def before(self, until_ms):
        return max(
            (run for run in self.runs if run.clock < until_ms), key=lambda run: run.clock, default=None
        )


def planned(log, new, shelf=None):
    """(the plan, the number of instants it ran)"""
    instants = []
    crunch = RecordedCrunch(log, {OLD: CONTRACT}.__getitem__, "engine")
    rules = NewRules(terms_of(new, NEW), new)
    plan = plan_rules(crunch, rules, from_ms=BOUNDARY, progress=instants.append, runs=shelf)
    return plan, len(instants)


@pytest.fixture(scope="module")
def log():
    return played()


@pytest.fixture(scope="module")
def sparse_log(log):
    """A log whose feed has empty decisions, as a node's has: at its beginning, and right after the boundary."""
    feed = log.decisions("feeds")
    at_boundary = next(
        i for i, decision in enumerate(feed) if max(event.at for event in decision.events) >= BOUNDARY
    )
    with_empty = MemoryLog({topic: records for topic, records in log.topics.items() if topic != "feeds"})
    owner = Owner(with_empty, FeedStage())
    with_empty.append("feeds", log.record("feeds", 0))
    owner.start()
    for number, decision in enumerate(feed):
        if number in (1, at_boundary):
            owner.send([], {}, {})
        owner.send(decision.events, dict(decision.upto), dict(decision.need))
    return with_empty


@pytest.fixture(scope="module")
def shelf(log):
    shelf = Shelf()
    planned(log, drawn(99), shelf)
    return shelf


@pytest.mark.parametrize("seed", first_of(3, range(6)))
def test_a_plan_that_continues_from_another_ones_run_is_the_same_and_runs_less(log, shelf, seed):
    (run,) = [shelf.before(BOUNDARY)]
    new = drawn(seed)
    whole, all_instants = planned(log, new)
    plan, instants = planned(log, new, shelf)
    assert msgspec.json.encode(plan) == msgspec.json.encode(whole)
    assert instants < all_instants * 0.6
    assert shelf.runs[-1] == run  # the state that it would save itself is the same


def test_a_feed_with_empty_decisions_is_planned_the_same(log, sparse_log):
    shelf, new = Shelf(), drawn(2)
    whole, _ = planned(sparse_log, new)
    assert planned(sparse_log, new, shelf)[0] == whole
    assert len(shelf.runs) == 1
    assert planned(sparse_log, new, shelf)[0] == whole == planned(log, new)[0]


def test_a_saved_run_is_read_back_unchanged(log, shelf):
    as_read = Shelf()
    as_read.runs = [msgspec.msgpack.decode(msgspec.msgpack.encode(shelf.runs[0]), type=type(shelf.runs[0]))]
    assert planned(log, drawn(3), as_read)[0] == planned(log, drawn(3))[0]


@pytest.mark.parametrize("seed", first_of(2, range(4)))
def test_a_shadow_that_continues_from_a_plans_run_decides_the_same_as_one_from_the_first_event(
    log, shelf, seed
):
    new = drawn(seed)
    whole = follow(shadow_of(new), log, random.Random(seed))
    state = begun_with(rules_of(new), shelf.before(BOUNDARY))
    shadow = Shadow(rules_of(new), {OLD: CONTRACT, NEW: new}.__getitem__, state)
    assert shadow.needs["feeds"].offset > log.end("feeds") * 0.3
    half = follow(shadow, log, random.Random(seed), steps=20)
    again = Shadow(rules_of(new), {OLD: CONTRACT, NEW: new}.__getitem__, half.keep())
    assert seen(follow(again, log, random.Random(seed + 1))) == seen(whole)


def test_a_correction_continues_from_a_run_of_the_original_feed(right):
    shelf = Shelf()
    options = {"number": 1, "runs": shelf}
    whole = corrections.recomputed(right, number=1)
    assert corrections.recomputed(right, **options) == whole
    assert len(shelf.runs) == 1
    instants = []
    assert corrections.recomputed(right, progress=instants.append, **options) == whole
    everything = []
    corrections.recomputed(right, number=1, progress=everything.append)
    assert len(instants) < len(everything)


def test_a_correction_of_a_record_before_the_period_begins_at_the_first_event(mended):
    shelf = Shelf()
    options = {"number": 1, "runs": shelf}
    whole = corrections.recomputed(mended, number=1)
    assert corrections.recomputed(mended, **options) == whole
    assert shelf.runs == []  # the feed was changed, so nobody else may continue from this run
    plain = MemoryLog(mended.topics)
    kept_as_it_came = Shelf()
    plan_rules(
        RecordedCrunch(plain, lambda _: corrections.PAID_BY, "engine"),
        NewRules(terms_of(CONTRACT, NEW), CONTRACT),
        from_ms=corrections.checkpoints(mended)[1].period_start,
        runs=kept_as_it_came,
    )
    assert kept_as_it_came.runs
    assert corrections.recomputed(mended, number=1, runs=kept_as_it_came) == whole


right, mended = corrections.right, corrections.mended
