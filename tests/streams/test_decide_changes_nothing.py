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
    SUBJECT,
    T0,
    configured,
    inputs_until,
    received,
    resolved,
    shelf,
    terms,
)

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.stage import Draft, Stage
from coordinator.streams.ports import FeedRecord, Subscription
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


def checkpoint() -> Stage:
    return CheckpointStage("btc-up", shelf())


def withheld() -> MemoryLog:
    log = after(a_day_of_rounds(), score, aggregate)
    for number in range(2):
        data = ev.WithholdCheckpointData(reason="look first")
        Author(log, "commands").write(ev.WithholdCheckpoint(id=f"w/{number}", at=T0, data=data))
    return log


SCENES: dict[str, tuple[Callable[[], Stage], Callable[[], MemoryLog]]] = {
    **{
        f"inputs, {name}": (lambda: InputStage(shelf()), scene)
        for name, scene in test_crash_inputs.SCENES.items()
    },
    "checkpoints": (checkpoint, lambda: after(a_day_of_rounds(), score, aggregate)),
    "checkpoints and commands": (checkpoint, withheld),
}


@pytest.mark.parametrize("scene", SCENES)
def test_decide_asked_twice_says_the_same_and_changes_nothing(scene):
    new_stage, sources = SCENES[scene]
    owner = Watched(sources(), new_stage())
    owner.start()
    owner.run()
    assert owner.asked


def test_what_the_feed_stage_is_asked_changes_nothing():
    """Its decisions are made by what comes from outside: each asked for twice is the same draft."""
    stage = FeedStage()
    of = Subscription("generated", SUBJECT, "candle", "1m")
    values = {"close": "1"}

    def same(make: Callable[[], Draft | None]) -> Draft:
        first, second = make(), make()
        assert first is not None
        assert second is not None
        assert encoded(first) == encoded(second)
        stage.remember(first)
        return first

    same(lambda: stage.configure(terms(), 0))
    for number in range(5):
        at = T0 + number * MINUTE
        record = FeedRecord("generated", SUBJECT, "candle", "1m", at - MINUTE, at, values)
        same(lambda record=record, at=at: stage.offer([record], at, rehearsal=False))
    assert stage.due(T0 + HOUR, [of], [], 0, "late", connected=True) == stage.due(
        T0 + HOUR, [of], [], 0, "late", connected=True
    )
    same(lambda: stage.configure(terms(min_participation=0.5), 0))
