"""The engine makes one log from one feed, whatever the log is stored in. It can continue from a saved state, and its
memory stays bounded.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.streams.build import DEFAULT, HASH, MINUTE, T0

from coordinator.streams import events as ev
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, RecordedAnswers, StaleStateError, memory_log
from coordinator.streams.engine.engine import Output
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import WorldError
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles
from coordinator.streams.topology import TOPICS

ROUNDS = 240
OF = Subscription("generated", "BTCUSDT", "candle", "1m")
CANDLES = list(generated_candles(OF, T0, T0 + (ROUNDS - 1) * MINUTE, seed=3))
SETTINGS = Settings(feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=7200)
UNWRITTEN = Output(keeps_log=False)
DECIDED = [topic for topic in TOPICS if topic not in ("commands", "dead-letters")]


class Momentum:
    """Follows the last candle. Raises in some minutes and answers nonsense in others. It has a memory."""

    def __init__(self) -> None:
        self.closes = []

    def tick(self, data):
        self.closes.append(data["candles"][-1]["close"])
        if len(self.closes) % 50 == 0:
            raise ValueError("no opinion")

    def predict(self, subject, horizon_seconds, step_seconds):
        if len(self.closes) % 33 == 0:
            return {"value": float("nan")}
        return {"value": 0.3 if self.closes[-1] > self.closes[0] else -0.3}


def models():
    return Functions({"m": Momentum(), "flat": lambda data, call: {"value": 0.1}})


def engine(the_models=None, **options):
    new_engine = Engine(lambda _: DEFAULT, the_models or models(), **options)
    if "kept" not in options:
        new_engine.configure(make_terms(DEFAULT, HASH, SETTINGS, 0))
    return new_engine


def fed(engine, candles=CANDLES):
    for candle in candles:
        engine.feed(candle.at, [candle])
    return engine


@pytest.fixture(scope="module")
def whole():
    return fed(engine())


def test_the_same_feed_models_and_contract_make_the_same_counted_log(whole):
    again = fed(engine())
    assert {topic: whole.log.counted(topic) for topic in DECIDED} == {
        topic: again.log.counted(topic) for topic in DECIDED
    }


def test_the_log_has_every_stage_from_feed_to_checkpoint(whole):
    kinds = {topic: {type(event).__name__ for event in whole.log.events(topic)} for topic in DECIDED}
    assert kinds["predictions"] == {"RoundOpened", "ScopeAnswered", "RoundAnswered"}
    assert {"RoundScored", "ScoredUntil"} <= kinds["scores"]
    assert {"SnapshotTaken", "PeriodClosed"} <= kinds["snapshots"]
    opened = [event for event in whole.log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    assert [event.data.period_end for event in opened] == [T0 + 120 * MINUTE]
    assert all(
        sum(reward["reward_pct"] for reward in event.data.emission["cruncher_rewards"]) == 10**9
        for event in opened
    )


def test_an_exception_or_a_wrong_answer_of_a_model_is_recorded_as_its_answer(whole):
    reasons = {
        entry.reason
        for event in whole.log.events("predictions")
        if isinstance(event, ev.ScopeAnswered)
        for entry in event.data.entries(
            [ev.RosterEntry(model_id, f"{model_id}-1") for model_id in ("flat", "m")]
        )
        if entry.status != "PENDING"
    }
    assert reasons == {"MODEL_FAILED: ValueError: no opinion", "BAD_OUTPUT: .value is not finite"}


@pytest.mark.parametrize("at", sorted(random.Random(5).sample(range(1, ROUNDS), 4)))
def test_an_engine_continues_from_a_saved_state_to_the_very_same_log(whole, at):
    """With the same positions and epochs: if the state is deleted, it only takes more time."""
    the_models = models()
    first = fed(engine(the_models), CANDLES[:at])
    second = fed(engine(the_models, state_bytes=first.keep()), CANDLES[at:])
    for topic in TOPICS:
        held = second.log[topic]
        begin = second.log.bases.get(topic, 0)
        assert held == whole.log[topic][begin:], topic
    assert second.end_now() == whole.end_now()


def test_a_continued_engine_can_be_saved_at_once():
    state_bytes = fed(engine(models(), output=UNWRITTEN), CANDLES).keep()
    assert engine(models(), state_bytes=state_bytes, output=UNWRITTEN).keep() == state_bytes


def test_a_saved_state_of_another_version_is_not_used():
    state_bytes = engine().keep()
    with pytest.raises(StaleStateError, match="another version or crunch"):
        engine(state_bytes=state_bytes, crunch_id="other")
    state = msgspec.msgpack.decode(state_bytes)
    state["owners"]["scores"]["form"] = "other-1"
    with pytest.raises(StaleStateError, match="another version"):
        engine(state_bytes=msgspec.msgpack.encode(state))
    with pytest.raises(StaleStateError, match="cannot be read"):
        engine(state_bytes=state_bytes[:-1])


def test_a_log_that_is_not_kept_stays_small_and_has_the_same_decisions(whole):
    heard = []
    quiet = fed(engine(output=Output({"checkpoints": heard.append, "scores": heard.append}, keeps_log=False)))
    assert {topic: quiet.log.end(topic) for topic in TOPICS} == {
        topic: whole.log.end(topic) for topic in TOPICS
    }
    quiet._trim()
    assert sum(len(records) for records in quiet.log.topics.values()) < 700
    expected = [event for topic in ("scores", "checkpoints") for event in whole.log.events(topic)]
    events_heard = [event for decision in heard for event in decision.events]
    assert sorted(map(encode_event, events_heard)) == sorted(map(encode_event, expected))


@pytest.mark.parametrize("shared", [2, memory_log.DECISIONS_SHARED])
def test_a_log_that_is_not_encoded_at_once_returns_the_requested_records(whole, shared, monkeypatch):
    """A record is encoded when others replace a decision that is still needed, or when the state is saved."""
    monkeypatch.setattr(memory_log, "DECISIONS_SHARED", shared)
    unwritten = fed(engine(output=UNWRITTEN))
    assert unwritten.keep() == whole.keep()
    held = sum(len(records) for records in unwritten.log.topics.values())
    assert held < sum(len(records) for records in whole.log.topics.values()) / 2


def test_with_recorded_answers_no_model_is_asked(whole):
    again = fed(engine(RecordedAnswers(whole.log.decisions("predictions"))))
    for topic in ("predictions", "scores", "snapshots", "checkpoints"):
        before, after = (
            [event for event in run.log.events(topic) if not isinstance(event, ev.RoundOpened)]
            for run in (whole, again)
        )
        assert before == after, topic


def test_the_running_period_can_end_early_without_a_change_of_the_engine(whole):
    before = {topic: list(whole.log[topic]) for topic in TOPICS}
    ending = whole.end_now()
    assert {topic: list(whole.log[topic]) for topic in TOPICS} == before
    assert ending.until == CANDLES[-1].at + 1
    assert ending.checkpoint is not None
    assert ending.checkpoint.period_start == CANDLES[-1].at // 7_200_000 * 7_200_000
    with pytest.raises(WorldError, match="nothing has been scored"):
        engine().end_now()


def test_a_command_is_decided_by_its_stage():
    commanded = fed(engine(), CANDLES[:5])
    commanded.command(ev.BanModel(id="b1", at=T0, data=ev.BanModelData(model_id="flat", reason="a test")))
    fed(commanded, CANDLES[5:8])
    rosters = [
        [entry.model_id for entry in event.data.roster]
        for event in commanded.log.events("predictions")
        if isinstance(event, ev.RoundOpened)
    ]
    assert rosters == [["flat", "m"]] * 5 + [["m"]] * 3
