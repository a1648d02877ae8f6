"""Every stage, over whole markets: `decide` asked twice says the same, and nothing of the stage's state has moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.given import encoded, state_of
from tests.memory_log import Author, MemoryLog, Owner, undisturbed
from tests.streams import test_crash_inputs, test_crash_score
from tests.streams.build import (
    HOUR,
    MINUTE,
    T0,
    configured,
    inputs_until,
    received,
    resolved,
    shelf,
)

from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.stage import Stage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


class Watched(Owner):
    """An owner that asks twice, and looks at the whole state before and after."""

    asked = 0

    def pump(self) -> None:
        while True:
            before = state_of(self.stage)
            first, second = self.stage.decide(), self.stage.decide()
            assert state_of(self.stage) == before, f"{type(self.stage).__name__}.decide() changes state"
            assert (first is None) == (second is None)
            if first is None:
                return
            assert encoded(first) == encoded(second)
            self.asked += 1
            self.stage.remember(first)
            if not getattr(first, "silent", False):
                self.send(first.events, dict(self.stage.upto), dict(self.stage.need))


def a_day_of_rounds() -> MemoryLog:
    """Twenty rounds an hour apart, so that snapshots and checkpoints come of them."""
    log = MemoryLog()
    inputs, predictions = Author(log, "inputs"), Author(log, "predictions")
    inputs.write(configured())
    for hour in range(20):
        point = T0 + hour * HOUR
        inputs.write(received(point))
        test_crash_score.round_of(predictions, point)
        inputs.write(resolved(point), inputs_until(point + MINUTE))
    inputs.write(inputs_until(T0 + 24 * HOUR))
    return log


def after(log: MemoryLog, *stages: Callable[[], Stage]) -> MemoryLog:
    for stage in stages:
        log = undisturbed(log, stage)
    return log


def score() -> Stage:
    return ScoreStage(shelf())


def aggregate() -> Stage:
    return SnapshotStage(shelf())


SCENES: dict[str, tuple[Callable[[], Stage], Callable[[], MemoryLog]]] = {
    **{
        f"inputs, {name}": (lambda: InputStage(shelf()), scene)
        for name, scene in test_crash_inputs.SCENES.items()
    },
}


@pytest.mark.parametrize("scene", SCENES)
def test_decide_asked_twice_says_the_same_and_changes_nothing(scene):
    new_stage, sources = SCENES[scene]
    owner = Watched(sources(), new_stage())
    owner.start()
    owner.run()
    assert owner.asked
