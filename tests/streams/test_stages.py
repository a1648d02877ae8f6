"""Properties of every stage, tested over whole markets: its two functions are pure, and its state is a value.

A second call of `decide` returns the same and changes nothing. On a copy of the state, or on a state that was written
and read back, it returns the same, and all of them go on to equal states.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.given import decision, encoded
from tests.memory_log import Author, MemoryLog, Owner, undisturbed
from tests.streams import test_crash_chain, test_crash_inputs, test_crash_score
from tests.streams.build import (
    HOUR,
    MINUTE,
    PUBKEY,
    SUBJECT,
    T0,
    answer_entries,
    configured,
    inputs_until,
    received,
    resolved,
    shelf,
    terms,
)
from tests.streams.inputs import test_questions

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.prizes import prize_amounts, shares_of
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import RosterEntry
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, PlacedEvent, State
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.ports import FeedRecord, ModelInfo, ModelNotice, Subscription
from coordinator.streams.predictions.stage import Answered, AnsweredInPart, PredictionStage, RoundAsked
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


def written(state: State) -> bytes:
    """The state as JSON: the same state, the same bytes."""
    return msgspec.json.encode(state)


def read_back(state: State) -> Any:
    return msgspec.json.decode(written(state), type=type(state))


class Watched(Owner):
    """An owner that compares the whole state before and after each question, and asks copies too."""

    asked = made = 0

    def pump(self) -> None:
        stage = self.stage
        while stage._waiting and not stage.blocked(stage.state, stage._waiting[0]):
            placed = stage._waiting[0]
            before = written(stage.state)
            first, second = stage.decide(stage.state, placed), stage.decide(stage.state, placed)
            assert written(stage.state) == before, f"{type(stage).__name__}.decide() changes state"
            twins = [copy.deepcopy(stage.state), read_back(stage.state)]
            assert all(twin == stage.state for twin in twins)
            for draft_again in [second, *(stage.decide(twin, placed) for twin in twins)]:
                assert (draft_again is None) == (first is None)
                assert draft_again is None or encoded(draft_again) == encoded(first)
            self.asked += 1
            waiting = list(stage._waiting)
            draft = stage.next_draft()
            passed = len(waiting) - len(stage._waiting)
            if draft is not None:
                self.made += 1
                stage.remember(draft)
            decided = waiting[: len(waiting) - len(stage._waiting)]
            for twin in twins:
                for placed in decided[:passed]:
                    stage.fold(twin, placed)
                if draft is not None:
                    remembered_by(stage, twin, draft, decided[passed:])
                assert written(twin) == written(stage.state)
            if draft is not None:
                self.send(draft.events, dict(stage.upto), dict(stage.need))


def remembered_by(stage: Any, state: Any, draft: Draft, decided: list[PlacedEvent]) -> None:
    """Does what `remember` does, on a copy of the stage's state."""
    state.upto.update(draft.upto)
    state.need.update(draft.need)
    for placed in [
        PlacedEvent(stage.topic, event) for event in draft.events if type(event).__name__ in stage.memory
    ]:
        stage.fold(state, placed)
    for placed in decided:
        stage.fold(state, placed)


def a_day_of_rounds() -> MemoryLog:
    """Twenty rounds an hour apart, enough for snapshots and checkpoints."""
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


def checkpoint() -> CheckpointStage:
    return CheckpointStage("btc-up", shelf())


def paying() -> CheckpointStage:
    return CheckpointStage("btc-up", shelf(CrunchContract(crunch_pubkey=PUBKEY)))


def snapshots_of_a_day() -> MemoryLog:
    return undisturbed(undisturbed(a_day_of_rounds(), score), aggregate)


def withheld() -> MemoryLog:
    """Two commands that withhold the next checkpoint, and some about it."""
    log = snapshots_of_a_day()
    commands = Author(log, "commands")
    for number in range(2):
        data = ev.WithholdCheckpointData(reason="look first")
        commands.write(ev.WithholdCheckpoint(id=f"w/{number}", at=T0, data=data))
    return log


def corrected() -> MemoryLog:
    """Checkpoints of a day, and two corrections of the first before the next one is built."""
    log = snapshots_of_a_day()
    opened = undisturbed(log, paying).events("checkpoints")
    parent = next(event.data for event in opened if isinstance(event, ev.CheckpointOpened))
    (first, paid), *_ = prize_amounts(parent, 10)[0]
    commands = Author(log, "commands")
    for due in (3, 5):
        data = ev.CorrectCheckpointData(
            checkpoint_id=test_crash_chain.CKP,
            total_prize=10,
            models=[
                ev.ModelCorrection(model_id="absent", paid=0, due=due),
                ev.ModelCorrection(model_id=first, paid=paid, due=paid - due),
            ],
            reason="a wrong close",
            shares=shares_of(parent),
        )
        commands.write(ev.CorrectCheckpoint(id=f"correct/{due}", at=T0, data=data))
    return log


SCENES: dict[str, Any] = {
    "inputs of the chain": of_chain("inputs"),
    **{
        f"inputs, {name}": (test_crash_inputs.new_stage, scene)
        for name, scene in test_crash_inputs.SCENES.items()
    },
    **{
        f"inputs, {name}": (test_questions.new_stage, scene)
        for name, scene in test_questions.QUESTION_SCENES.items()
    },
    "scores of the chain": of_chain("scores"),
    **{f"scores, {name}": (score, scene) for name, scene in test_crash_score.SCENES.items()},
    "scores of a day": (score, a_day_of_rounds),
    "snapshots of the chain": of_chain("snapshots"),
    "snapshots of a day": (aggregate, lambda: undisturbed(a_day_of_rounds(), score)),
    "snapshots of ten periods at once": (aggregate, test_crash_chain.ten_periods),
    "checkpoints of the chain": of_chain("checkpoints"),
    "checkpoints of a day": (checkpoint, snapshots_of_a_day),
    "checkpoints and commands": (checkpoint, withheld),
    "checkpoints and corrections": (paying, corrected),
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
    """The draft for outside events. Asked twice, and on copies of the state, it must be the same; then it is folded."""
    before = written(stage.state)
    first, second = stage.hear(event), stage.hear(event)
    assert written(stage.state) == before, f"{type(stage).__name__}.decide() changes state"
    twins = [copy.deepcopy(stage.state), read_back(stage.state)]
    for draft_again in [second, *(stage.decide(twin, PlacedEvent("", event)) for twin in twins)]:
        assert (draft_again is None) == (first is None)
        assert draft_again is None or encoded(draft_again) == encoded(first)
    if first is not None:
        stage.remember(first)
        for twin in twins:
            remembered_by(stage, twin, first, [])
            assert written(twin) == written(stage.state)
    return first


@pytest.mark.parametrize("seed", range(3))
def test_rounds_can_run_side_by_side(seed: int) -> None:
    rng, stage, after = random.Random(seed), PredictionStage(), PredictionStage()
    roster = [RosterEntry(model_id=model_id, deployment_id="d") for model_id in "abc"]
    entries = {
        entry.model_id: entry for entry in answer_entries({"a": 0.5, "b": "ABSENT", "c": "FAILED(node)"})
    }
    for number in range(40):
        the_input = received(T0 + number // 3 * MINUTE, f"S{number % 3}")
        stage.fold(stage.state, PlacedEvent("inputs", the_input, (number, 0), Need(number), Need(number + 1)))
        drafts = [heard(stage, RoundAsked(the_input.data, roster, T0, 1))]
        while stage.state.open_rounds and (number == 39 or rng.random() < 0.6):
            input_id, the_round = rng.choice(list(stage.state.open_rounds.items()))
            left = [model_id for model_id in entries if model_id not in the_round.answered_ids]
            if len(left) > 1 and rng.random() < 0.5:
                part = rng.sample(left, 1)
                drafts.append(heard(stage, AnsweredInPart(input_id, {"60s": [entries[part[0]]]}, part, T0)))
            else:
                drafts.append(
                    heard(stage, Answered(input_id, {"60s": [entries[model_id] for model_id in left]}, T0))
                )
        for draft in drafts:
            assert draft is not None
            after.remember(decision("predictions", number, list(draft.events), upto=dict(draft.upto)))
        assert after.state.own == stage.state.own
    assert (stage.state.open_rounds, stage.state.arrived) == ({}, {})
    assert stage.decided("inputs", (39, 0))
    last = received(T0 + HOUR)  # the next answer shows that `upto` is past all of them
    stage.fold(stage.state, PlacedEvent("inputs", last, (40, 0), Need(40), Need(41)))
    heard(stage, RoundAsked(last.data, roster, T0, 1))
    heard(stage, Answered(last.data.input_id, {}, T0))
    assert stage.state.own.rounds == {}


class OutsideDriven:
    """A stage whose decisions come from outside. Each is asked for twice, and also on a state that was written and
    read.
    """

    def __init__(self, stage: FeedStage | ModelStage) -> None:
        self.stage = stage

    def same(self, make: Callable[[Any], Draft | None]) -> Draft:
        stage: Any = self.stage
        before = written(stage.state)
        first, second = make(stage), make(stage)
        assert written(stage.state) == before, f"{type(stage).__name__} is changed by asking"
        twin = copy.copy(stage)
        twin.state, twin._waiting = read_back(stage.state), copy.copy(stage._waiting)
        assert twin.state == stage.state
        stage.state = None  # questions to the twin must not be checked in turn
        third = make(twin)
        stage.state = read_back(twin.state)
        assert first is not None
        assert second is not None
        assert third is not None
        assert encoded(first) == encoded(second) == encoded(third)
        stage.remember(first)
        twin.remember(third)
        assert written(twin.state) == written(stage.state)
        return first

    def hear(self, offset: int, command: ev.Event) -> Draft:
        self.stage.absorb(decision("commands", offset, [command]))
        return self.same(lambda stage: stage.next_draft())


def test_decisions_from_outside_in_feeds_follow_from_the_written_state() -> None:
    feed = OutsideDriven(FeedStage(lambda _command: terms(min_participation=0.25)))
    of = Subscription("generated", SUBJECT, "candle", "1m")
    prices = Subscription("generated", SUBJECT, "tick", "1s")

    def candle(minute: int, close: str = "1", revision: int = 0) -> FeedRecord:
        opened = T0 + minute * MINUTE
        return of.record(opened, opened + MINUTE, {"close": close}, revision)

    feed.same(lambda stage: stage.configure(terms(), 0))
    for minute in (0, 1, 2, 3, 7):
        at = T0 + (minute + 1) * MINUTE
        price = prices.record(at - 7, at - 7, {"price": "5"})
        feed.same(
            lambda stage, at=at, minute=minute, price=price: stage.offer(
                [candle(minute), price], at, rehearsal=False
            )
        )
    feed.same(lambda stage: stage.offer([candle(2, "9"), candle(3, "1", 4)], None, rehearsal=False))
    late = T0 + HOUR
    due = feed.stage.own.due(late, [of], [], 0, "late", connected=True)
    assert due == feed.stage.own.due(late, [of], [], 0, "late", connected=True)
    feed.same(
        lambda stage: stage.offer(
            [], late, rehearsal=False, gaps=due[0], states=[("generated", "degraded", "x")]
        )
    )
    feed.same(lambda stage: stage.offer([candle(5), candle(4), candle(6)], None, rehearsal=False))
    feed.same(lambda stage: stage.configure(terms(min_participation=0.5), 0))
    backfill = [ev.GivenRecord(ts_event=T0 - MINUTE, at=T0, values={"close": "1"})]
    data = ev.RecordFeedData(
        source="generated", subject=SUBJECT, kind="candle", granularity="1m", records=backfill
    )
    assert len(feed.hear(0, ev.RecordFeed(id="r", at=T0, data=data)).events) == 1
    assert feed.hear(1, ev.RecordFeed(id="again", at=T0, data=data)).events == []
    applied = ev.ApplyContractData(contract_hash="new", path="p", archive=b"")
    assert len(feed.hear(2, ev.ApplyContract(id="a", at=T0, data=applied)).events) == 1


def test_decisions_from_outside_in_models_follow_from_the_written_state() -> None:
    models = OutsideDriven(ModelStage())

    def notice(change: str, model_id: str, deployment: str = "d1") -> ModelNotice:
        return ModelNotice(change, ModelInfo(model_id, f"model {model_id}", deployment), "X", "why")

    models.same(lambda stage: stage.offer([notice("seen", "7"), notice("seen", "8")], 0))
    models.same(lambda stage: stage.offer([notice("failed", "7"), notice("left", "8")], T0))
    for number, command in enumerate((ev.BanModel, ev.BanModel)):
        data = ev.BanModelData(model_id="7", reason="copied")
        draft = models.hear(number, command(id=f"b{number}", at=T0, data=data))
        assert len(draft.events) == (0 if number else 1)
    lifted = ev.ReadmitModelData(model_id="7", reason="cleared")
    assert len(models.hear(2, ev.ReadmitModel(id="r", at=T0, data=lifted)).events) == 1
    models.same(lambda stage: stage.offer([notice("seen", "7", "d2"), notice("seen", "8")], T0 + 1))
