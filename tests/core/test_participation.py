"""Minimum participation is of all rounds of the period since a model first joined, the node's faults left out.

Who answers a few rounds, is lucky and leaves would else be paid like one who answered them all. The rounds are counted by
the aggregate stage and judged by the checkpoint stage; here the one feeds the other.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.build import (
    DEFAULT,
    HOUR,
    MINUTE,
    T0,
    configured,
    period_closed,
    round_scores,
    scored_until,
    shelf,
    snapshot,
)
from tests.given import Given, given

from coordinator.streams import events as ev
from coordinator.streams.aggregate import AggregateStage
from coordinator.streams.checkpoint import CheckpointStage

PERIOD = 6 * HOUR
Rounds = list[tuple[float, dict[str, int | str]]]
"""(hours after T0 at which the truth is known, what each model on the roster came to)."""


def snapshots_of(rounds: Rounds, hours: int = 6, **terms: Any) -> Given:
    """The aggregate stage after all of it; `made` are the snapshots and closed periods."""
    scene = given(AggregateStage(shelf(DEFAULT))).when("scores", configured(**terms))
    for hour, values in rounds:
        at = T0 + round(hour * HOUR)
        scene.when("scores", *round_scores(at - MINUTE, values, resolvable_at=at))
    return scene.when("scores", scored_until(T0 + hours * HOUR))


def checkpoint_of(rounds: Rounds, share: float, hours: int = 6, **terms: Any) -> ev.CheckpointData:
    """What the period's checkpoint says when so much participation is asked for."""
    scene = given(CheckpointStage("btc-up", shelf(DEFAULT)))
    scene.when("snapshots", configured(min_participation=share, **terms))
    scene.when("snapshots", *snapshots_of(rounds, hours, **terms).made)
    opened = scene.all(ev.CheckpointOpened)
    return opened[-1].data


def every(minutes: int, model: str = "steady", value: int | str = 5, hours: int = 6) -> Rounds:
    return [(minute / 60, {model: value}) for minute in range(minutes, hours * 60, minutes)]


def mixed(rounds: Rounds, extra: dict[int, dict[str, int | str]]) -> Rounds:
    """The n-th rounds get more entries."""
    return [(at, values | extra.get(n, {})) for n, (at, values) in enumerate(rounds)]


def participation(data: ev.CheckpointData, model_id: str) -> tuple[int, int]:
    """(scored, of) of a ranked model."""
    (entry,) = [one for one in data.ranking if one.model_id == model_id]
    return entry.prediction_count, entry.rounds_count


STEADY = every(10)  # 35 rounds


def test_a_model_that_was_always_there_is_measured_by_every_round():
    assert participation(checkpoint_of(STEADY, 1.0), "steady") == (35, 35)


def test_who_comes_late_is_measured_from_its_first_round():
    rounds = mixed(STEADY, {n: {"late": 9} for n in range(30, 35)})
    assert participation(checkpoint_of(rounds, 1.0), "late") == (5, 5)


def test_who_leaves_after_a_few_lucky_rounds_is_measured_by_all_that_follow():
    rounds = mixed(STEADY, {0: {"lucky": 99}, 1: {"lucky": 99}})
    assert participation(checkpoint_of(rounds, 0.0), "lucky") == (2, 35)
    data = checkpoint_of(rounds, 0.5)
    assert [one.model_id for one in data.ranking] == ["steady"]
    assert data.unranked_reasons == {"lucky": "scored in 2 of 35 rounds, min_participation is 0.5"}


def test_also_where_its_windows_are_empty_and_no_snapshot_tells_of_it_any_more():
    rounds = mixed(STEADY, {0: {"lucky": 99}})
    short = {"windows": [ev.Window(name="score_recent", hours=1)]}
    made = snapshots_of(rounds, **short).made
    assert [one.data.model_id for one in made if isinstance(one, ev.SnapshotTaken)].count("lucky") == 1
    assert participation(checkpoint_of(rounds, 0.0, **short), "lucky") == (1, 35)


def test_who_joined_in_an_earlier_period_is_measured_by_the_whole_of_this_one():
    rounds = [(0.5, {"old": 1}), *[(6 + at, values) for at, values in mixed(STEADY, {34: {"old": 9}})]]
    data = checkpoint_of(rounds, 0.0, hours=12)
    assert data.period_start == T0 + PERIOD
    assert participation(data, "old") == (1, 35)


NODES_FAULTS = {
    # what else happens, (scored, of) of the model
    "absent by the node's fault": ({5: {"m": "ABSENT(node)"}}, (34, 34)),
    "failed by the node's fault": ({5: {"m": "FAILED(node)"}, 6: {"m": "FAILED(node)"}}, (33, 33)),
    "absent by its own": ({5: {"m": "ABSENT"}}, (34, 35)),
    "failed by its own": ({5: {"m": "FAILED"}}, (34, 35)),
    "a round without a truth": ({5: {"m": "FAILED(node)", "steady": "FAILED(node)"}}, (34, 34)),
}


@pytest.mark.parametrize(("extra", "expected"), NODES_FAULTS.values(), ids=NODES_FAULTS)
def test_the_nodes_faults_count_for_nobody(extra, expected):
    rounds = mixed(mixed(STEADY, {n: {"m": 7} for n in range(35)}), extra)
    data = checkpoint_of(rounds, 0.9)
    assert participation(data, "m") == expected
    (entry,) = [one for one in data.ranking if one.model_id == "m"]
    scored = sum(values.get("m") == 7 for _, values in rounds)
    assert entry.failed_count + entry.absent_count == 35 - scored


def test_a_round_that_nobody_could_answer_is_missed_by_nobody_who_was_away():
    rounds = mixed(
        STEADY, {n: {"m": 7} for n in range(10)} | {n: {"steady": "FAILED(node)"} for n in range(10, 35)}
    )
    assert participation(checkpoint_of(rounds, 1.0), "m") == (10, 10)


def test_a_long_horizon_asked_before_a_model_joined_is_not_its_own():
    """A round of a day's horizon is known a day later; who joined in between was never asked in it."""
    scene = given(AggregateStage(shelf(DEFAULT))).when("scores", configured())
    scene.when("scores", *round_scores(T0 + 10 * MINUTE, {"new": 1, "old": 1}))
    scene.when("scores", *round_scores(T0, {"old": 1}, scope_key="600s", resolvable_at=T0 + 12 * MINUTE))
    scene.when("scores", *round_scores(T0 + 10 * MINUTE, {"new": 1, "old": 1}, scope_key="600s",
                                       resolvable_at=T0 + 20 * MINUTE))  # fmt: skip
    scene.when("scores", scored_until(T0 + HOUR))
    told = {
        one.data.model_id: (one.data.first_point, one.data.rounds_count)
        for one in scene.all(ev.SnapshotTaken)
    }
    assert told == {"new": (T0 + 10 * MINUTE, 2), "old": (T0, 3)}
    assert scene.only(ev.PeriodClosed).data.rounds_count == 3


def test_a_new_owner_knows_since_when_a_model_takes_part():
    """`first_point` comes from the stage's own past, however long ago that was."""
    old = snapshot("m", T0 - 1000 * HOUR, 5, first_point=T0 - 1001 * HOUR, rounds_count=60)
    scene = given(AggregateStage(shelf(DEFAULT))).own(configured(), old, period_closed(T0 - HOUR, T0))
    scene.when("scores", *round_scores(T0 + MINUTE, {"other": 5}))
    scene.when("scores", *round_scores(T0 + 2 * MINUTE, {"m": 5}))
    scene.when("scores", scored_until(T0 + HOUR))
    told = {
        one.data.model_id: (one.data.first_point, one.data.rounds_count)
        for one in scene.all(ev.SnapshotTaken)
    }
    assert told == {"m": (T0 - 1001 * HOUR, 2), "other": (T0 + MINUTE, 2)}


def test_snapshots_from_before_rounds_were_counted_are_measured_by_what_they_say():
    scene = given(CheckpointStage("btc-up", shelf(DEFAULT))).when(
        "snapshots", configured(min_participation=0.5)
    )
    scene.when("snapshots", snapshot("a", T0, 5, n=5, absent_model_count=6), snapshot("b", T0, 4))
    scene.when("snapshots", period_closed(T0, T0 + PERIOD))
    data = scene.only(ev.CheckpointOpened).data
    assert [one.model_id for one in data.ranking] == ["b"]
    assert "5 of 11 rounds" in data.unranked_reasons["a"]


def test_why_a_model_is_unranked_is_told():
    scene = given(CheckpointStage("btc-up", shelf(DEFAULT))).when(
        "snapshots", configured(checkpoint_key="ic")
    )
    scene.when(
        "snapshots",
        snapshot("a", T0, 5, summary_units={"ic": 7}),
        snapshot("b", T0, 4),
        snapshot("c", T0, 0, n=0),
        snapshot("__ensemble_x", T0, 9, summary_units={"ic": 9}),
        period_closed(T0, T0 + PERIOD),
    )
    assert scene.only(ev.CheckpointOpened).data.unranked_reasons == {
        "__ensemble_x": "an ensemble, on no chain",
        "b": "no summary has ic",
        "c": "never scored in the period",
    }
