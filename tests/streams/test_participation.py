"""Minimum participation counts all rounds of the period for every model, without those that failed by the node's fault.

Otherwise a model that answers a few rounds, is lucky and leaves, or joins only for the last minutes, would be paid like
one that answered them all. A newcomer is excused, up to a declared share, for rounds that were asked before it joined
and before the period began. The aggregate stage counts the rounds and the checkpoint stage judges them; here one feeds
the other.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.given import given
from tests.streams.build import (
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

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.snapshots.stage import SnapshotStage

PERIOD = 6 * HOUR
Rounds = list[tuple[float, dict[str, int | str]]]
"""(hours after T0 at which the truth is known, each model's value or status)."""


CRUNCHERS = {"again": "lucy", "lucky": "lucy"}
"""Owners of some models; each of the others has a player of its own."""


def snapshots_of(rounds: Rounds, hours: int = 6, horizon: float = 1 / 60, **terms: Any) -> list[Any]:
    """The aggregate stage's events, hour by hour, as on a node: snapshots and closed periods."""
    scene = given(SnapshotStage(shelf(DEFAULT))).when("scores", configured(**terms))
    told: list[Any] = []
    waiting = sorted(rounds, key=lambda scored_round: scored_round[0])
    for hour in range(1, hours + 1):
        while waiting and waiting[0][0] < hour:
            known_at, values = waiting.pop(0)
            at = T0 + round(known_at * HOUR)
            point = at - round(horizon * HOUR)
            scene.when("scores", *round_scores(point, values, resolvable_at=at, crunchers=CRUNCHERS))
        told += scene.when("scores", scored_until(T0 + hour * HOUR)).made
    return told


def checkpoint_of(
    rounds: Rounds, share: float, hours: int = 6, horizon: float = 1 / 60, **terms: Any
) -> ev.CheckpointData:
    """The newest period's checkpoint under this minimum participation. `horizon` is in hours."""
    scene = given(CheckpointStage("btc-up", shelf(DEFAULT)))
    scene.when("snapshots", configured(min_participation=share, **terms))
    scene.when("snapshots", *snapshots_of(rounds, hours, horizon, **terms))
    opened = scene.all(ev.CheckpointOpened)
    return opened[-1].data


def every(minutes: int, model: str = "steady", value: int | str = 5, hours: int = 6) -> Rounds:
    return [(minute / 60, {model: value}) for minute in range(minutes, hours * 60, minutes)]


def mixed(rounds: Rounds, extra: dict[int, dict[str, int | str]]) -> Rounds:
    """Adds entries to the n-th rounds."""
    return [(at, values | extra.get(n, {})) for n, (at, values) in enumerate(rounds)]


def participation(data: ev.CheckpointData, model_id: str) -> tuple[int, int]:
    """(scored, of) of a ranked model."""
    (entry,) = [row for row in data.ranking if row.model_id == model_id]
    return entry.prediction_count, entry.rounds_count


STEADY = every(10)  # 35 rounds


def test_a_model_that_was_always_there_is_measured_by_every_round():
    assert participation(checkpoint_of(STEADY, 1.0), "steady") == (35, 35)


def test_a_latecomer_is_measured_by_all_rounds_like_every_model():
    rounds = mixed(STEADY, {n: {"late": 9} for n in range(30, 35)})
    assert participation(checkpoint_of(rounds, 0.0), "late") == (5, 35)
    assert checkpoint_of(rounds, 0.5).unranked_reasons == {
        "late": "scored in 5 of 35 rounds of the period, min_participation is 0.5"
    }


def test_a_new_model_of_a_player_does_not_count_as_a_newcomer():
    """`lucky` answers badly and is stopped. `again` is from the same player, under another id."""
    rounds = mixed(STEADY, {n: {"lucky": -99} for n in range(20)} | {n: {"again": 9} for n in range(20, 35)})
    data = checkpoint_of(rounds, 0.5)
    assert [row.model_id for row in data.ranking] == ["steady", "lucky"]
    assert data.unranked_reasons["again"].startswith("scored in 15 of 35 rounds")


def hourly(first: int, last: int, **models: int) -> Rounds:
    """Rounds every ten minutes from the hour `first` until `last` (when the truth is known); model -> hour it joined."""
    return [
        (minute / 60, {model_id: 5 for model_id, since in models.items() if minute >= since * 60})
        for minute in range(first * 60, last * 60, 10)
    ]


def test_a_model_that_answered_everything_since_its_start_is_paid_whatever_the_horizon():
    """With a horizon of a day, the rounds that resolve in a day's period were asked the day before."""
    day = {"checkpoint_interval_ms": 24 * HOUR}
    rounds = hourly(24, 72, old=0, new=48)  # the new one joined at hour 24, at the start of the second day
    data = checkpoint_of(rounds, 0.9, hours=72, horizon=24, **day)
    assert data.period_start == T0 + 48 * HOUR
    assert participation(data, "new") == (144, 144)


def test_rounds_asked_before_the_period_and_before_it_joined_are_excused_up_to_the_declared_share():
    """A period of two days and a horizon of one day: half of its rounds were asked before it began."""
    two_days = {"checkpoint_interval_ms": 48 * HOUR}
    rounds = hourly(24, 96, old=0, new=72)  # joined at hour 48, at the start of the period
    whole = checkpoint_of(rounds, 0.9, hours=96, horizon=24, **two_days)
    assert whole.period_start == T0 + 48 * HOUR
    assert participation(whole, "new") == (144, 144)
    assert participation(whole, "old") == (288, 288)
    strict = checkpoint_of(rounds, 0.9, hours=96, horizon=24, newcomer_excuse_max=0.0, **two_days)
    assert strict.unranked_reasons == {
        "new": "scored in 144 of 288 rounds of the period, min_participation is 0.9"
    }
    some = checkpoint_of(rounds, 0.0, hours=96, horizon=24, newcomer_excuse_max=0.25, **two_days)
    assert participation(some, "new") == (144, 288 - 72)


def test_two_hours_of_horizon_and_nine_tenths():
    rounds = hourly(2, 12, old=0, new=8)  # joined at hour 6, where the second period begins
    assert participation(checkpoint_of(rounds, 0.9, hours=12, horizon=2), "new") == (24, 24)


def test_a_horizon_longer_than_the_period_does_not_let_a_latecomer_in():
    """All of the period's rounds were asked before it began, and at most half of them are excused."""
    rounds = mixed(hourly(24, 30, old=0), {n: {"late": 9} for n in range(34, 36)})
    data = checkpoint_of(rounds, 0.5, hours=30, horizon=24)
    assert data.unranked_reasons == {
        "late": "scored in 2 of 18 rounds of the period, min_participation is 0.5"
    }


def test_a_player_who_took_part_before_is_excused_nothing_for_a_new_model():
    rounds = [(1.0, {"lucky": 1}), *hourly(24, 96, old=0, again=72)]
    two_days = {"checkpoint_interval_ms": 48 * HOUR}
    data = checkpoint_of(rounds, 0.0, hours=96, horizon=24, **two_days)
    assert participation(data, "again") == (144, 288)


def test_four_models_that_join_four_minutes_before_the_end_earn_nothing():
    """One of `++ +- -+ --` is right twice whatever happens. The period is twenty minutes long."""
    truths = (1, -1)
    late = {f"sybil{a:+d}{b:+d}": (a, b) for a in (1, -1) for b in (1, -1)}
    twenty = {"checkpoint_interval_ms": 20 * MINUTE, "snapshot_interval_ms": 5 * MINUTE}
    scene = given(SnapshotStage(shelf(DEFAULT))).when("scores", configured(**twenty))
    payer = given(CheckpointStage("btc-up", shelf(DEFAULT)))
    payer.when("snapshots", configured(min_participation=0.5, **twenty))
    for minute in range(20):
        values = {"steady": 5} | {
            model_id: 1000 * guesses[minute - 18] * truths[minute - 18]
            for model_id, guesses in late.items()
            if minute >= 18
        }
        at = T0 + minute * MINUTE
        scene.when("scores", *round_scores(at - MINUTE, values, resolvable_at=at))
        if (minute + 1) % 5 == 0:
            payer.when("snapshots", *scene.when("scores", scored_until(at + MINUTE)).made)
    data = payer.only(ev.CheckpointOpened).data
    assert [row.model_id for row in data.ranking] == ["steady"]
    assert set(data.unranked_reasons) == set(late)


def test_a_model_that_leaves_after_a_few_lucky_rounds_is_measured_by_all_later_ones():
    rounds = mixed(STEADY, {0: {"lucky": 99}, 1: {"lucky": 99}})
    assert participation(checkpoint_of(rounds, 0.0), "lucky") == (2, 35)
    data = checkpoint_of(rounds, 0.5)
    assert [row.model_id for row in data.ranking] == ["steady"]
    assert data.unranked_reasons == {
        "lucky": "scored in 2 of 35 rounds of the period, min_participation is 0.5"
    }


def test_it_is_measured_so_also_when_its_windows_are_empty_and_it_has_no_snapshot():
    rounds = mixed(STEADY, {0: {"lucky": 99}})
    short = {"windows": [ev.Window(name="score_recent", hours=1)]}
    events = snapshots_of(rounds, **short)
    assert [event.data.model_id for event in events if isinstance(event, ev.SnapshotTaken)].count(
        "lucky"
    ) == 1
    assert participation(checkpoint_of(rounds, 0.0, **short), "lucky") == (1, 35)


def test_a_model_that_joined_in_an_earlier_period_is_measured_by_the_whole_of_this_one():
    rounds = [(0.5, {"old": 1}), *[(6 + at, values) for at, values in mixed(STEADY, {34: {"old": 9}})]]
    data = checkpoint_of(rounds, 0.0, hours=12)
    assert data.period_start == T0 + PERIOD
    assert participation(data, "old") == (1, 35)


NODES_FAULTS = {
    # other entries of the round, (scored, of) of the model
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
    (entry,) = [row for row in data.ranking if row.model_id == "m"]
    scored = sum(values.get("m") == 7 for _, values in rounds)
    assert entry.failed_count + entry.absent_count == 35 - scored


def test_a_round_that_nobody_could_answer_counts_against_no_absent_model():
    rounds = mixed(
        STEADY, {n: {"m": 7} for n in range(10)} | {n: {"steady": "FAILED(node)"} for n in range(10, 35)}
    )
    assert participation(checkpoint_of(rounds, 1.0), "m") == (10, 10)


def test_the_closed_period_counts_rounds_asked_before_the_checkpoint_period():
    scene = given(SnapshotStage(shelf(DEFAULT))).when("scores", configured())
    for minute, horizon in ((-30, 40), (-30, 40), (-10, 15), (0, 10), (20, 1)):
        at = T0 + minute * MINUTE
        until = at + horizon * MINUTE
        scene.when("scores", *round_scores(at, {"m": 1}, scope_key=f"{horizon}", resolvable_at=until))
    scene.when("scores", scored_until(T0 + HOUR))
    closed = scene.all(ev.PeriodClosed)[-1].data
    assert closed.rounds_count == 5
    assert closed.asked_before == [
        ev.PointCount(T0 - 30 * MINUTE, 2), ev.PointCount(T0 - 10 * MINUTE, 1)
    ]  # fmt: skip


def test_a_new_owner_knows_since_when_a_player_takes_part():
    """`first_point` comes from the stage's own past, however old it is."""
    old = snapshot("m", T0 - 1000 * HOUR, 5, first_point=T0 - 1001 * HOUR, cruncher_id="p")
    scene = given(SnapshotStage(shelf(DEFAULT))).own(configured(), old, period_closed(T0 - HOUR, T0))
    scene.when("scores", *round_scores(T0 + MINUTE, {"other": 5}))
    scene.when("scores", *round_scores(T0 + 2 * MINUTE, {"m": 5, "m2": 5}, crunchers={"m": "p", "m2": "p"}))
    scene.when("scores", scored_until(T0 + HOUR))
    told = {event.data.model_id: event.data.first_point for event in scene.all(ev.SnapshotTaken)}
    assert told == {"m": T0 - 1001 * HOUR, "m2": T0 - 1001 * HOUR, "other": T0 + MINUTE}


def test_the_reason_why_a_model_is_unranked_is_given():
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
