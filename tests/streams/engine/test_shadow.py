"""A shadow: its decisions while the log grows are those of a plan over the same log, also after it was killed."""

from __future__ import annotations

import random

import pytest
from tests.first_of import first_of
from tests.logs import make_terms
from tests.streams.build import MINUTE, T0, snapshot
from tests.streams.engine.test_plan import (
    BOUNDARY,
    CONTRACT,
    NEW,
    NOBODY,
    OLD,
    PERIOD_ROUNDS,
    drawn,
    planned,
    played,
    terms_of,
)

from coordinator.streams.contract import Aggregation, Coverage, CrunchContract, Ensemble
from coordinator.streams.engine.divergence import Bounds, divergence, why_uncompared
from coordinator.streams.engine.engine import StaleStateError
from coordinator.streams.engine.plan import ModelStanding
from coordinator.streams.engine.rerun import begin_of_last, recorded_terms
from coordinator.streams.engine.shadow import (
    AHEAD_MAX,
    TOPICS_READ,
    PeriodDecided,
    Shadow,
    ShadowRules,
    SideDecisions,
)
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import ensemble_id


@pytest.fixture(scope="module")
def log():
    return played()


def rules_of(new, from_ms=BOUNDARY):
    return ShadowRules(crunch_id="engine", terms=terms_of(new, NEW), from_ms=from_ms)


def shadow_of(new, state_bytes=None, **options):
    return Shadow(rules_of(new, **options), {OLD: CONTRACT, NEW: new}.__getitem__, state_bytes)


def later(log, needs):
    """Topic -> the decisions of a reader that begins at these positions."""
    return {topic: log.decisions(topic, needs[topic]) for topic in TOPICS_READ}


def follow(shadow, log, chance, steps=None):
    """Reads the log in pieces, the topics in any order, and steps in between. Stops after `bits` pieces."""
    left = later(log, shadow.needs)
    while any(left.values()) and steps != 0:
        topic = chance.choice([topic for topic, decisions in left.items() if decisions])
        for _ in range(chance.randint(1, 25)):
            if left[topic] and shadow.wants(topic):
                shadow.take(left[topic].pop(0))
        for _ in range(chance.randint(0, 25)):
            shadow.step()
        steps = None if steps is None else steps - 1
    if not any(left.values()):
        while shadow.step():
            pass
    return shadow


def seen(shadow):
    return shadow.new, shadow.live, shadow.clock


def assert_is_the_plan(shadow, plan):
    assert {(period.start, period.end): (period.models, period.note) for period in shadow.new.periods} == {
        (period.period_start, period.period_end): (in_plan(period.models, "not in it"), period.new_note)
        for period in plan.periods
        if period.new_note != NOBODY
    }
    assert shadow.new.board_end == plan.board_at
    assert shadow.new.board() == {
        model_id: standing
        for model_id, standing in in_plan(plan.board, "").items()
        if model_id in shadow.new.snapshots
    }


def in_plan(models, absent):
    return {
        model.model_id: model.new for model in models if not absent or model.new.unranked_reason != absent
    }


@pytest.mark.parametrize("seed", first_of(5, range(12)))
def test_a_shadow_decides_what_the_plan_says(log, seed):
    new, chance = drawn(seed), random.Random(seed)
    shadow = follow(shadow_of(new), log, chance)
    plan = planned(log, new, from_ms=BOUNDARY, until_ms=shadow.clock + 1)
    assert (len(plan.periods), len(shadow.new.snapshots)) == (2, 3)
    assert_is_the_plan(shadow, plan)


def test_a_board_by_a_key_of_the_summary_is_that_of_the_plan(log):
    new = CrunchContract(aggregation=Aggregation(ranking_key="value"))
    shadow = follow(shadow_of(new), log, random.Random(1))
    assert_is_the_plan(shadow, planned(log, new, from_ms=BOUNDARY, until_ms=shadow.clock + 1))
    assert {place.rank for place in shadow.new.board().values()} == {1, 2, 3}


def test_an_ensemble_takes_no_place_and_a_model_below_the_coverage_has_none(log):
    new = CrunchContract(ensembles=[Ensemble(name="all")], coverage=Coverage(share=0.95, rounds=40))
    shadow = follow(shadow_of(new), log, random.Random(1))
    assert shadow.new.snapshots.keys() == {"one", "two", "calm", ensemble_id("all")}
    assert {model_id: place.rank for model_id, place in shadow.new.board().items()} == {
        "calm": 1,
        "one": None,
        "two": None,
    }
    assert_is_the_plan(shadow, planned(log, new, from_ms=BOUNDARY, until_ms=shadow.clock + 1))


@pytest.mark.parametrize("seed", first_of(3, range(12, 20)))
def test_a_shadow_continues_after_any_kill_as_if_it_had_not_been_killed(log, seed):
    new, chance = drawn(seed), random.Random(seed)
    undisturbed = seen(follow(shadow_of(new), log, random.Random(0)))
    state_bytes = None
    for _ in range(6):
        shadow = follow(shadow_of(new, state_bytes), log, chance, steps=chance.randint(1, 30))
        state_bytes = shadow.keep()
        follow(shadow, log, chance, steps=chance.randint(1, 9))  # its work after the last save is lost
    assert seen(follow(shadow_of(new, state_bytes), log, chance)) == undisturbed


def test_it_waits_for_the_answers_of_a_live_log(log):
    shadow = shadow_of(drawn(1))
    told = later(log, shadow.needs)
    for topic in ("feeds", "inputs"):
        for decision in told[topic]:
            shadow.take(decision)
    while shadow.step():
        pass
    assert shadow.clock <= T0 + 2 * MINUTE
    for decision in told["predictions"]:
        shadow.take(decision)
    while shadow.step():
        pass
    assert shadow.clock == max(event.at for event in log.events("feeds"))


def test_a_topic_that_is_far_ahead_is_read_no_further(log):
    shadow = shadow_of(drawn(1))
    (first, *_) = log.decisions("feeds")
    for _ in range(AHEAD_MAX):
        assert shadow.wants("feeds")
        shadow.take(first)
    assert not shadow.wants("feeds")
    assert shadow.wants("inputs")


def test_rules_that_ask_something_else_are_refused_at_the_first_input(log):
    shadow = shadow_of(CrunchContract(deadline_seconds=3))
    with pytest.raises(OperatorError, match="the models would have been asked something else"):
        follow(shadow, log, random.Random(1))
    assert shadow.clock < BOUNDARY + 2 * MINUTE


def test_the_same_rules_decide_like_the_live_ones(log):
    begin = begin_of_last(recorded_terms(log))
    shadow = follow(shadow_of(CrunchContract(), from_ms=begin), log, random.Random(3))
    assert len(shadow.new.periods) == 4
    assert shadow.new.periods == [period for period in shadow.live.periods if period.end <= shadow.clock]
    assert shadow.new.board() == shadow.live.board()
    assert divergence(shadow.new, shadow.live, Bounds(rank_moves=1, share_frac64=1)) == ""


def test_a_saved_state_of_other_rules_is_not_used(log):
    state_bytes = follow(shadow_of(drawn(1)), log, random.Random(1), steps=30).keep()
    with pytest.raises(StaleStateError, match="of other rules"):
        shadow_of(drawn(1), state_bytes, from_ms=BOUNDARY + PERIOD_ROUNDS * MINUTE)
    with pytest.raises(StaleStateError, match="cannot be read"):
        shadow_of(drawn(1), state_bytes[:-1])


def side(places, shares=None):
    """A side whose board has these values (higher is better), and one checkpoint with these shares in percent."""
    models = {model_id: ModelStanding(1, 1, int(share * 1e7)) for model_id, share in (shares or {}).items()}
    return SideDecisions(
        terms=[make_terms(effective_from=0, ranking_key="day")],
        snapshots={
            model_id: snapshot(model_id, 0, 0, n=0, end=1000, windows_units={"day": value}).data
            for model_id, value in places.items()
        },
        board_end=1000,
        periods=[PeriodDecided(0, 1000, models, "")],
    )


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        (Bounds(), ""),
        (Bounds(rank_moves=3), ""),
        (Bounds(rank_moves=2), "one is number 1 on the live board, number 3 on the shadow's"),
        (Bounds(share_frac64=300_000_001), ""),
        (
            Bounds(share_frac64=300_000_000),
            "one gets 60.00 % of the checkpoint that ends at 1970-01-01 00:00:01Z, and 30.00 %",
        ),
    ],
)
def test_a_divergence_is_reported_from_the_bound_on(bounds, says):
    live = side({"one": 9, "two": 8, "three": 7}, {"one": 60, "two": 40})
    new = side({"one": 6, "two": 8, "three": 7}, {"one": 30, "two": 45, "three": 25})
    told = divergence(new, live, bounds)
    assert (told == "") == (says == "")
    assert says in told


def test_a_model_that_falls_off_the_board_has_moved_behind_its_end():
    live, new = side({"one": 9, "two": 8}), side({"one": None, "two": 8})
    assert "one is number 1 on the live board, unranked on the shadow's" in divergence(
        new, live, Bounds(rank_moves=2)
    )
    new.board_end = 2000  # another time: nothing is compared
    assert divergence(new, live, Bounds(rank_moves=1)) == ""


@pytest.mark.parametrize(
    ("shadow_end", "live_end", "says"),
    [
        (1000, 1000, ""),
        (None, 2000, "the shadow has no board yet; the live one ends at 1970-01-01 00:00:02Z"),
        (
            1000,
            2500,
            "the shadow is behind: its board ends at 1970-01-01 00:00:01Z, the live one at 1970-01-01 00:00:02.500Z",
        ),
        (
            3000,
            2000,
            "the live board is behind: it ends at 1970-01-01 00:00:02Z, the shadow's at 1970-01-01 00:00:03Z",
        ),
        (1000, None, ""),
    ],
)
def test_boards_of_different_times_are_not_compared_and_the_one_behind_is_named(shadow_end, live_end, says):
    live, new = side({"one": 9}), side({"one": None})
    new.board_end, live.board_end = shadow_end, live_end
    told = why_uncompared(new, live, Bounds(rank_moves=1))
    assert told == (says and f"places are not compared: {says}")
    assert why_uncompared(new, live, Bounds(share_frac64=1)) == ""  # nobody asked for places


def test_a_checkpoint_in_which_the_shadow_pays_nobody_is_a_divergence():
    live, new = side({"one": 9}, {"one": 60, "two": 40}), side({"one": 9})
    new.periods = []
    assert "one gets 60.00 %" in divergence(new, live, Bounds(share_frac64=1))
    new.board_end = 999  # not decided yet
    assert divergence(new, live, Bounds(share_frac64=1)) == ""
