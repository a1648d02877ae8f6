"""The aggregate stage: snapshots per model and period, windows as sums over buckets, periods closed in order."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from tests.given import Given, given
from tests.streams.build import (
    DEFAULT,
    HOUR,
    MINUTE,
    SUBJECT,
    T0,
    UNIT,
    configured,
    round_scores,
    scored_until,
    shelf,
    terms,
)

from coordinator.streams.contract import CrunchContract, ScoreResult
from coordinator.streams.events import (
    CrunchConfigured,
    FieldSum,
    PeriodClosed,
    RoundScored,
    SnapshotTaken,
    Window,
)
from coordinator.streams.log import stage as stage_shape
from coordinator.streams.log.envelope import Need
from coordinator.streams.snapshots.stage import SnapshotStage


def stage(contract: CrunchContract = DEFAULT, **changes: Any) -> Given:
    return given(SnapshotStage(shelf(contract))).when("scores", configured(**changes)).then(CrunchConfigured)


def rounds(scene: Given, hour: float, values: dict[str, int | str], **where: Any) -> Given:
    """A round whose truth is known `hour` hours after T0."""
    at = T0 + round(hour * HOUR)
    return scene.when("scores", *round_scores(at - MINUTE, values, resolvable_at=at, **where)).then()


def close(scene: Given, hour: float) -> Given:
    return scene.when("scores", scored_until(T0 + round(hour * HOUR)))


def periods(scene: Given) -> list[tuple[int, int, int]]:
    return [
        ((event.data.from_ms - T0) // HOUR, (event.data.until_ms - T0) // HOUR, event.data.snapshot_count)
        for event in scene.all(PeriodClosed)
    ]


def snapshots(scene: Given) -> dict[tuple[str, int], Any]:
    return {
        (event.data.model_id, (event.data.period_start - T0) // HOUR): event.data
        for event in scene.all(SnapshotTaken)
    }


def test_a_period_sums_up_each_model():
    scene = stage()
    rounds(scene, 0.0, {"a": 10, "b": -30, "c": "ABSENT"})
    rounds(scene, 0.5, {"a": 20, "b": "FAILED", "c": "ABSENT(node)"})
    rounds(scene, 0.75, {"a": 30, "b": "FAILED(node)", "c": "ABSENT"})
    close(scene, 1).then(SnapshotTaken, SnapshotTaken, SnapshotTaken, PeriodClosed)
    taken = snapshots(scene)
    a, b, c = (taken[name, 0] for name in "abc")
    assert (a.sums, a.scored_count, a.summary_units) == ({"value": FieldSum(60, 3)}, 3, {"value": 20})
    assert (b.sums, b.scored_count, b.failed_count, b.failed_node_count) == (
        {"value": FieldSum(-30, 1)},
        1,
        2,
        1,
    )
    assert (c.sums, c.scored_count, c.absent_model_count, c.absent_node_count) == ({}, 0, 2, 1)
    assert a.windows_units == {"score_recent": 20, "score_steady": 20, "score_anchor": 20}
    assert c.windows_units == {"score_recent": None, "score_steady": None, "score_anchor": None}
    assert (a.period_start, a.period_end) == (T0, T0 + HOUR)
    assert periods(scene) == [(0, 1, 3)]


@pytest.mark.parametrize(
    ("hour", "period"), [(0.0, 0), (1 - 1 / HOUR, 0), (1.0, 1)], ids=["start", "last ms", "end"]
)
def test_a_period_contains_its_start_and_not_its_end(hour, period):
    scene = rounds(stage(), hour, {"a": 1})
    rounds(scene, 1.5, {"z": 1})
    close(scene, 2)
    assert ("a", period) in snapshots(scene)
    assert snapshots(scene)["a", period].scored_count == 1


def test_scores_of_several_rounds_and_scopes_add_up_whatever_their_order():
    values = [
        ("a", 5, "60s", SUBJECT),
        ("a", -7, "300s", SUBJECT),
        ("a", 11, "60s", "ETHUSDT"),
        ("a", 1, "300s", "ETHUSDT"),
    ]
    outcomes = set()
    for seed in range(6):
        scene, mixed = stage(), values[:]
        random.Random(seed).shuffle(mixed)
        for model_id, value, key, subject in mixed:
            rounds(scene, 0.5, {model_id: value}, scope_key=key, subject=subject)
        close(scene, 1)
        data = snapshots(scene)["a", 0]
        outcomes.add((data.sums["value"], data.scored_count, tuple(data.summary_units.items())))
    assert outcomes == {(FieldSum(10, 4), 4, (("value", 2),))}  # 2.5 rounds half-even to 2


def test_the_contract_receives_the_scores_in_order_of_resolvable_time_input_and_scope():
    def notes(scores):
        return {f"place{i}": score.value for i, score in enumerate(scores)}

    scene = stage(CrunchContract(aggregate_snapshot=notes))
    for hour, subject, key, value in [
        (0.5, "ETHUSDT", "a", 3), (0.25, SUBJECT, "b", 2), (0.5, SUBJECT, "a", 4), (0.25, SUBJECT, "a", 1),
    ]:  # fmt: skip
        rounds(scene, hour, {"m": value * UNIT}, subject=subject, scope_key=key)
    close(scene, 1)
    summary = snapshots(scene)["m", 0].summary_units
    # inp/BTCUSDT/.. comes before inp/ETHUSDT/..
    assert [summary[f"place{i}"] // UNIT for i in range(4)] == [1, 2, 4, 3]


# --- periods ---------------------------------------------------------------------------------------------


def test_time_begins_at_the_first_boundary_if_nothing_was_scored():
    scene = close(stage(), 5).then(PeriodClosed)
    assert periods(scene) == [(5, 5, 0)]


def test_time_begins_with_the_first_period_that_has_a_score():
    scene = rounds(stage(), 7.5, {"a": 1})
    close(scene, 8)
    assert periods(scene) == [(7, 8, 1)]


def test_a_run_of_empty_periods_is_one_event():
    windows = [Window(name="score_recent", hours=1)]
    scene = close(stage(windows=windows), 0)
    rounds(scene, 4.5, {"a": 1})
    rounds(scene, 8.5, {"a": 1})
    close(scene, 12)
    assert periods(scene) == [(0, 4, 0), (4, 5, 1), (5, 8, 0), (8, 9, 1), (9, 12, 0)]


def test_one_event_can_close_ten_periods():
    scene = stage(windows=[Window(name="score_recent", hours=3)])
    for hour in range(10):
        rounds(scene, hour + 0.5, {"a": hour} if hour % 4 else {"a": hour, "b": 10 * hour})
    close(scene, 10)
    assert [period[:2] for period in periods(scene)] == [(hour, hour + 1) for hour in range(10)]
    taken = snapshots(scene)
    assert [taken["a", hour].windows_units["score_recent"] for hour in range(10)] == [
        0,
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ]
    assert taken["b", 5].windows_units["score_recent"] == 40
    assert taken["b", 7].windows_units["score_recent"] is None if ("b", 7) in taken else True
    assert len(scene.drafts) == 1


def test_a_period_is_closed_once():
    scene = rounds(stage(), 0.5, {"a": 1})
    close(scene, 1).then(SnapshotTaken, PeriodClosed)
    close(scene, 1).then()
    close(scene, 0).then()


def test_periods_are_contiguous_whatever_is_scored():
    rng, scene, ends = random.Random(7), stage(), []
    hour = 0.0
    for _ in range(60):
        hour += rng.choice([0.1, 0.4, 1.0, 7.0])
        rounds(scene, hour, {"a": 1})
        if rng.random() < 0.3:
            close(scene, int(hour))
            ends += [(event.data.from_ms, event.data.until_ms) for event in scene.all(PeriodClosed)]
    assert [start for start, _ in ends[1:]] == [until for _, until in ends[:-1]]


# --- rehearsal -------------------------------------------------------------------------------------------


def test_replayed_scores_mark_their_period_and_the_windows_that_contain_it_as_rehearsal():
    scene = stage(windows=[Window(name="score_recent", hours=1), Window(name="long", hours=2)])
    rounds(scene, 0.5, {"a": 1}, rehearsal=True)
    rounds(scene, 1.5, {"a": 1})
    rounds(scene, 2.5, {"a": 1})
    close(scene, 3)
    taken = snapshots(scene)
    assert [(taken["a", h].rehearsal, taken["a", h].rehearsal_windows) for h in range(3)] == [
        (True, ["score_recent", "long"]),
        (False, ["long"]),
        (False, []),
    ]
    assert [event.data.rehearsal for event in scene.all(PeriodClosed)] == [True, False, False]


# --- the author's function -------------------------------------------------------------------------------


class Labelled(ScoreResult):
    label: str  # not kept, because only numbers are


def raising(scores):
    raise KeyError("value")


SUMMARIES = {
    "raises": (raising, "aggregate_snapshot: KeyError"),
    "NaN": (lambda scores: {"x": float("nan")}, "score is not finite"),
    "no dict": (lambda scores: [1.0], "aggregate_snapshot: AttributeError"),
    "beyond 2**53": (lambda scores: {"x": 1e20}, "beyond 2**53"),
}


@pytest.mark.parametrize(("function", "reason"), SUMMARIES.values(), ids=SUMMARIES)
def test_an_exception_in_the_aggregate_costs_the_summary_and_nothing_else(function, reason):
    scene = rounds(stage(CrunchContract(aggregate_snapshot=function)), 0.5, {"a": 10, "b": 20})
    close(scene, 1).then(SnapshotTaken, SnapshotTaken, PeriodClosed)
    data = snapshots(scene)["a", 0]
    assert data.summary_units == {}
    assert reason in data.summary_error
    assert data.sums == {"value": FieldSum(10, 1)}
    assert data.windows_units["score_recent"] == 10


def test_a_score_type_that_cannot_be_built_from_its_numbers_costs_the_summary_and_nothing_else():
    scene = rounds(stage(CrunchContract(score_type=Labelled)), 0.5, {"a": 10})
    close(scene, 1).then(SnapshotTaken, PeriodClosed)
    assert "label" in snapshots(scene)["a", 0].summary_error


def test_only_numbers_of_a_summary_are_kept():
    contract = CrunchContract(
        aggregate_snapshot=lambda scores: {"n": len(scores), "ok": True, "word": "x", "mean": 0.5}
    )
    scene = rounds(stage(contract), 0.5, {"a": 10})
    close(scene, 1)
    assert snapshots(scene)["a", 0].summary_units == {"mean": UNIT // 2, "n": UNIT}


def test_the_aggregate_is_not_called_for_a_model_without_scores():
    scene = rounds(stage(CrunchContract(aggregate_snapshot=raising)), 0.5, {"a": "ABSENT"})
    close(scene, 1)
    assert (snapshots(scene)["a", 0].summary_units, snapshots(scene)["a", 0].summary_error) == ({}, "")


# --- terms, need, empties --------------------------------------------------------------------------------


def test_new_terms_change_interval_and_windows_from_their_boundary_on():
    scene = stage(windows=[Window(name="score_recent", hours=2)])
    other = [Window(name="score_recent", hours=6)]
    scene.when(
        "scores", configured(effective_from=T0 + 6 * HOUR, snapshot_interval_ms=3 * HOUR, windows=other)
    )
    for hour in range(4, 12):
        rounds(scene, hour + 0.5, {"a": 10 * hour})
    close(scene, 12)
    recent = {hour: data.windows_units["score_recent"] for (_, hour), data in snapshots(scene).items()}
    assert recent == {4: 40, 5: 45, 6: 60, 9: 85}


def test_need_is_the_start_of_the_oldest_open_period():
    scene = given(SnapshotStage(shelf())).at("scores", 10).when("scores", configured())
    rounds(scene, 0.5, {"a": 1})  # at 11
    rounds(scene, 1.5, {"a": 1})  # at 12
    close(scene, 1)
    assert scene.drafts[-1].need == {"scores": Need(12, 1, 12)}
    close(scene, 2)
    assert scene.drafts[-1].need == {"scores": Need(15, 1, 15)}


def test_a_stage_with_nothing_to_decide_records_its_position_now_and_then(monkeypatch):
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", 4)
    scene = stage()
    empty = []
    for i in range(12):
        scene.when("scores", *round_scores(T0 + i * MINUTE, {"a": 1}))
        empty += [(draft.upto["scores"], draft.need["scores"].offset) for draft in scene.drafts]
    assert empty == [((4, 0), 1), ((8, 0), 1), ((12, 0), 1)]


def test_a_score_of_a_closed_period_changes_nothing():
    """After a restart, rounds of closed periods are read again."""
    scene = rounds(stage(), 0.5, {"a": 1})
    close(scene, 1)
    rounds(scene, 0.75, {"a": 1000})
    close(scene, 2)
    assert snapshots(scene)["a", 1].windows_units["score_recent"] == 1


def test_the_builder_of_a_round_without_answers_makes_the_score_stages_events():
    """The builder of these tests must make the same events as the stage before it."""
    kinds = [type(event) for event in round_scores(T0, {"a": 1, "b": "ABSENT"})]
    assert kinds == [RoundScored]
    assert terms().snapshot_interval_ms == HOUR


class Numbers(BaseModel):
    """A score type with two numbers."""

    value: float
    edge: float = 0.5
    success: bool = True


def test_every_numeric_field_has_its_own_sum_and_count():
    scene = stage(CrunchContract(score_type=Numbers))
    (scored,) = round_scores(T0, {"a": 4, "b": 5, "c": "ABSENT"})
    with_edge = scored.data.units | {"edge": [7, None, None]}
    data = msgspec.structs.replace(scored.data, units=with_edge)
    scene.when("scores", msgspec.structs.replace(scored, data=data))
    rounds(scene, 0.5, {"a": 6})
    close(scene, 1)
    assert snapshots(scene)["a", 0].sums == {"edge": FieldSum(7, 1), "value": FieldSum(10, 2)}
    assert snapshots(scene)["b", 0].sums == {"value": FieldSum(5, 1)}
