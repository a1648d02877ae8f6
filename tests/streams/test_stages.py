"""What holds of every stage, over whole markets: its two functions are pure, and its state is a value.

`decide` asked twice says the same and changes nothing; of a copy of the state, or of a state that was written down and
read back, it says the same; and both go on to equal states.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import msgspec
import pytest
from tests.given import decision, encoded
from tests.memory_log import Author, MemoryLog, Owner, undisturbed
from tests.streams import test_crash_chain, test_crash_score
from tests.streams.build import (
    HOUR,
    MINUTE,
    T0,
    answer_entries,
    configured,
    inputs_until,
    received,
    resolved,
    shelf,
)

from coordinator.streams.events import RosterEntry
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, State, Told
from coordinator.streams.predictions.stage import Answered, AnsweredInPart, Asked, PredictionStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


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


def aggregate() -> SnapshotStage:
    return SnapshotStage(shelf())


SCENES: dict[str, Any] = {
    "scores of the chain": of_chain("scores"),
    **{f"scores, {name}": (score, scene) for name, scene in test_crash_score.SCENES.items()},
    "scores of a day": (score, a_day_of_rounds),
    "snapshots of the chain": of_chain("snapshots"),
    "snapshots of a day": (aggregate, lambda: undisturbed(a_day_of_rounds(), score)),
    "snapshots of ten periods at once": (aggregate, test_crash_chain.ten_periods),
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


# --- stages that the outside drives ---------------------------------------------------------------------


def heard(stage: Any, event: Any) -> Draft | None:
    """The draft for what the outside says: asked twice, and of copies of the state, it is the same; then it is folded."""
    before = written(stage.state)
    first, second = stage.hear(event), stage.hear(event)
    assert written(stage.state) == before, f"{type(stage).__name__}.decide() changes state"
    twins = [copy.deepcopy(stage.state), read_back(stage.state)]
    for said in [second, *(stage.decide(twin, Told("", event)) for twin in twins)]:
        assert (said is None) == (first is None)
        assert said is None or encoded(said) == encoded(first)
    if first is not None:
        stage.remember(first)
        for twin in twins:
            remembered_by(stage, twin, first, [])
            assert written(twin) == written(stage.state)
    return first


@pytest.mark.parametrize("seed", range(3))
def test_rounds_that_go_on_side_by_side(seed: int) -> None:
    rng, stage, after = random.Random(seed), PredictionStage(), PredictionStage()
    roster = [RosterEntry(model_id=one, deployment_id="d") for one in "abc"]
    said = {one.model_id: one for one in answer_entries({"a": 0.5, "b": "ABSENT", "c": "FAILED(node)"})}
    for number in range(40):
        the_input = received(T0 + number // 3 * MINUTE, f"S{number % 3}")
        stage.fold(stage.state, Told("inputs", the_input, (number, 0), Need(number), Need(number + 1)))
        drafts = [heard(stage, Asked(the_input.data, roster, T0, 1))]
        while stage.state.open_rounds and (number == 39 or rng.random() < 0.6):
            input_id, the_round = rng.choice(list(stage.state.open_rounds.items()))
            left = [one for one in said if one not in the_round.answered_ids]
            if len(left) > 1 and rng.random() < 0.5:
                part = rng.sample(left, 1)
                drafts.append(heard(stage, AnsweredInPart(input_id, {"60s": [said[part[0]]]}, part, T0)))
            else:
                drafts.append(heard(stage, Answered(input_id, {"60s": [said[one] for one in left]}, T0)))
        for draft in drafts:
            assert draft is not None
            after.remember(decision("predictions", number, list(draft.events), upto=dict(draft.upto)))
        assert after.state.own == stage.state.own
    assert (stage.state.open_rounds, stage.state.arrived) == ({}, {})
    assert stage.decided("inputs", (39, 0))
    last = received(T0 + HOUR)  # the next answer shows that `upto` is past all of them
    stage.fold(stage.state, Told("inputs", last, (40, 0), Need(40), Need(41)))
    heard(stage, Asked(last.data, roster, T0, 1))
    heard(stage, Answered(last.data.input_id, {}, T0))
    assert stage.state.own.rounds == {}
