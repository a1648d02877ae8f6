"""Windows of the board: sums over snapshots that agree with brute force, null without a score, charges included."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from tests.streams.build import HOUR, MINUTE, T0, UNIT, round_scores, scored_until
from tests.streams.snapshots.test_snapshots_stage import close, periods, rounds, snapshots, stage

from coordinator.streams.events import FieldSum, SnapshotTaken, Window


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("interval", [HOUR, 4 * HOUR])
def test_windows_agree_with_brute_force(seed, interval):
    rng = random.Random(seed)
    windows = [Window(name="short", hours=4), Window(name="long", hours=12)]
    scene = stage(
        windows=windows, ranking_key="short", snapshot_interval_ms=interval, checkpoint_interval_ms=12 * HOUR
    )
    scores: list[tuple[str, int, int]] = []
    closed = 0
    for quarter in range(160):
        at = T0 + quarter * HOUR // 4
        models = [model for model in "abc" if rng.random() < (0.02 if 40 < quarter < 120 else 0.5)]
        if models:
            values = {model: rng.randint(-UNIT, UNIT) for model in models}
            scene.when("scores", *round_scores(at - MINUTE, values, resolvable_at=at))
            scores += [(model, at, value) for model, value in values.items()]
        if rng.random() < 0.15:
            until = (at + 1) // interval * interval
            if until > closed:
                scene.when("scores", scored_until(until))
                closed = until
                for event in scene.all(SnapshotTaken):
                    data = event.data
                    for window in windows:
                        inside = [
                            value
                            for model, when, value in scores
                            if model == data.model_id
                            and data.period_end - window.hours * HOUR <= when < data.period_end
                        ]
                        expected = round(Fraction(sum(inside), len(inside))) if inside else None
                        assert data.windows_units[window.name] == expected
    assert closed > 20 * HOUR


def test_a_model_stays_on_the_board_until_its_longest_window_is_empty():
    scene = stage(windows=[Window(name="score_recent", hours=2), Window(name="long", hours=4)])
    rounds(scene, 0.5, {"a": 8})
    close(scene, 7)
    windows_by_hour = {hour: data.windows_units for (_, hour), data in snapshots(scene).items()}
    assert windows_by_hour == {
        0: {"score_recent": 8, "long": 8},
        1: {"score_recent": 8, "long": 8},
        2: {"score_recent": None, "long": 8},
        3: {"score_recent": None, "long": 8},
    }
    assert periods(scene) == [(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1), (4, 7, 0)]


def test_a_model_that_joins_late_has_windows_of_its_own():
    scene = rounds(stage(), 0.5, {"a": 4})
    close(scene, 1)
    rounds(scene, 1.5, {"a": 6, "b": 100})
    close(scene, 2)
    taken = snapshots(scene)
    assert taken["a", 1].windows_units["score_recent"] == 5
    assert taken["b", 1].windows_units["score_recent"] == 100
    assert taken["b", 1].scored_count == 1


# --- charges: silence never wins -------------------------------------------------------------------------


def test_a_charge_counts_in_the_mean():
    scene = rounds(stage(absence_policy="zero"), 0.25, {"a": 30})
    rounds(scene, 0.5, {"a": "ABSENT"}, charges={"a": 0})
    rounds(scene, 0.75, {"a": "FAILED"}, charges={"a": -90})
    close(scene, 1)
    data = snapshots(scene)["a", 0]
    assert (data.sums["value"], data.charged_count, data.windows_units["score_recent"]) == (
        FieldSum(-60, 3),
        2,
        -20,
    )
    assert data.summary_units == {"value": 30}  # the contract's own summary covers scores only


def test_a_model_without_scores_is_charged_and_not_ranked():
    """Otherwise charges of 0 would put it above every model with small losses."""
    scene = rounds(stage(absence_policy="zero"), 0.5, {"idle": "ABSENT", "loser": -5}, charges={"idle": 0})
    close(scene, 1)
    taken = snapshots(scene)
    assert taken["idle", 0].sums == {"value": FieldSum(0, 1)}
    assert set(taken["idle", 0].windows_units.values()) == {None}
    assert taken["loser", 0].windows_units["score_recent"] == -5
