"""What holds of every stage, over whole markets: its two functions are pure, and its state is a value.

`decide` asked twice says the same and changes nothing; of a copy of the state, or of a state that was written down and
read back, it says the same; and both go on to equal states.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from tests.given import encoded
from tests.memory_log import Author, MemoryLog, Owner, undisturbed
from tests.streams import test_crash_chain, test_crash_score
from tests.streams.build import HOUR, MINUTE, T0, configured, inputs_until, received, resolved, shelf

from coordinator.streams.log.stage import Draft, State, Told
from coordinator.streams.scores.stage import ScoreStage


def written(state: State) -> bytes:
    """The state as JSON: the same state, the same bytes."""
    return msgspec.json.encode(state)


def read_back(state: State) -> Any:
    return msgspec.json.decode(written(state), type=type(state))


class Watched(Owner):
    """An owner that looks at the whole state around each question, and asks copies too."""

    asked = made = 0

    def pump(self) -> None:
        stage = self.stage
        while stage._waiting and not stage.blocked(stage.state, stage._waiting[0]):
            told = stage._waiting[0]
            before = written(stage.state)
            first, second = stage.decide(stage.state, told), stage.decide(stage.state, told)
            assert written(stage.state) == before, f"{type(stage).__name__}.decide() changes state"
            twins = [copy.deepcopy(stage.state), read_back(stage.state)]
            assert all(twin == stage.state for twin in twins)
            for said in [second, *(stage.decide(twin, told) for twin in twins)]:
                assert (said is None) == (first is None)
                assert said is None or encoded(said) == encoded(first)
            self.asked += 1
            waiting = list(stage._waiting)
            draft = stage.next_draft()
            passed = len(waiting) - len(stage._waiting)
            if draft is not None:
                self.made += 1
                stage.remember(draft)
            decided = waiting[: len(waiting) - len(stage._waiting)]
            for twin in twins:
                for told in decided[:passed]:
                    stage.fold(twin, told)
                if draft is not None:
                    remembered_by(stage, twin, draft, decided[passed:])
                assert written(twin) == written(stage.state)
            if draft is not None:
                self.send(draft.events, dict(stage.upto), dict(stage.need))


def remembered_by(stage: Any, state: Any, draft: Draft, decided: list[Told]) -> None:
    """What `remember` does, to a copy of the stage's state."""
    state.upto.update(draft.upto)
    state.need.update(draft.need)
    for told in [Told(stage.topic, one) for one in draft.events if type(one).__name__ in stage.memory]:
        stage.fold(state, told)
    for told in decided:
        stage.fold(state, told)


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


def of_chain(topic: str) -> Any:
    return (
        test_crash_chain.STAGES[topic],
        lambda: test_crash_chain.sources_of(topic, test_crash_chain.market(1)),
    )


def score() -> ScoreStage:
    return ScoreStage(shelf())


SCENES: dict[str, Any] = {
    "scores of the chain": of_chain("scores"),
    **{f"scores, {name}": (score, scene) for name, scene in test_crash_score.SCENES.items()},
    "scores of a day": (score, a_day_of_rounds),
}


@pytest.mark.parametrize("scene", SCENES)
def test_decide_is_pure_and_the_state_is_a_value(scene: str) -> None:
    new_stage, sources = SCENES[scene]
    log = sources()
    owner = Watched(log, new_stage())
    owner.start()
    owner.run()
    assert owner.made > 1
    assert owner.asked >= owner.made
    topic = owner.stage.topic
    assert log.counted(topic) == undisturbed(sources(), new_stage).counted(topic)
