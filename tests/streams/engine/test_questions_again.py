"""A log of questions is run again, with answers that were handed in, and with a truth that was corrected too late."""

from __future__ import annotations

import msgspec
from tests.streams.engine.test_questions_played import (
    CONTRACT,
    DAY,
    HOUR,
    MODELS,
    PERIOD_DAYS,
    T0,
    drawn,
    run,
)

from coordinator.streams import events as ev
from coordinator.streams.engine.correct import recompute
from coordinator.streams.engine.engine import CRUNCH_ID, Engine
from coordinator.streams.engine.rerun import RecordedCrunch, rerun

DECIDED = ("inputs", "predictions", "scores", "snapshots", "checkpoints")


def handed_in(engine: Engine, name: str, at: int, value: float) -> None:
    output = msgspec.Raw(msgspec.json.encode({"value": value}))
    answer = ev.SubmittedAnswer(question_id=name, scope_key="question", output=output)
    data = ev.SubmitAnswersData(
        round_id="r", model_id="hand", cruncher_id="c", answers=[answer], sha256="a" * 64
    )
    engine.command(ev.SubmitAnswers(id=f"cmd/{name}/{at}", at=at, data=data))


def post(engine: Engine, name: str, at: int, closes_at: int) -> None:
    question = ev.PostedQuestion(
        question_id=name, payload=msgspec.Raw(b"{}"), opens_at=at, closes_at=closes_at
    )
    data = ev.PostQuestionsData(round_id="r", questions=[question])
    engine.command(ev.PostQuestions(id=f"post/{name}", at=at, data=data))


def resolve(engine: Engine, name: str, at: int, outcome: float) -> None:
    truths = {name: msgspec.Raw(msgspec.json.encode({"outcome": outcome}))}
    data = ev.ResolveQuestionsData(round_id="r", truths=truths)
    engine.command(ev.ResolveQuestions(id=f"resolve/{name}/{at}", at=at, data=data))
    engine.feed(at + 1, [])


def paid(engine: Engine) -> list[ev.CheckpointData]:
    return [
        event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
        for event in engine.log.events("checkpoints")
        if isinstance(event, (ev.CheckpointOpened, ev.CheckpointWithheld))
    ]


def test_a_rerun_has_the_answers_that_were_handed_in():
    engine = run(drawn(10, seed=3))
    at = T0 + (PERIOD_DAYS + 2) * DAY
    engine.feed(at, [])
    post(engine, "q7777", at, at + DAY)
    engine.feed(at + HOUR, [])
    handed_in(engine, "q7777", at + HOUR, 0.9)
    engine.feed(at + 2 * HOUR, [])
    handed_in(engine, "q7777", at + 2 * HOUR, 0.8)
    engine.feed(at + DAY, [])
    resolve(engine, "q7777", at + DAY + HOUR, 1.0)
    (scored,) = [
        event.data
        for event in engine.log.events("scores")
        if isinstance(event, ev.RoundScored) and event.data.input_id.endswith("q7777")
    ]
    assert scored.units["value"][scored.models.index("hand")] == 960_000_000  # the later answer: 1 - 0.2 ** 2
    again = rerun(RecordedCrunch(engine.log, lambda _: CONTRACT, CRUNCH_ID))
    for topic in DECIDED:
        assert [event.id for event in again.log.events(topic)] == [
            event.id for event in engine.log.events(topic)
        ]


def test_a_truth_corrected_after_its_checkpoint_shows_what_should_have_been_paid():
    events = [drawn_event._replace(corrected=None) for drawn_event in drawn(12, seed=5)]
    engine = run(events)
    wrong = next(drawn_event for drawn_event in events if not drawn_event.is_void)
    late = T0 + (PERIOD_DAYS + 3) * DAY
    engine.feed(late, [])
    before = len(engine.log.events("scores"))
    resolve(engine, wrong.name, late, 1 - wrong.outcome)
    engine.feed(late + 2 * DAY, [])
    assert not any(isinstance(event, ev.RoundRescored) for event in engine.log.events("scores")[before:])
    parent = paid(engine)[0]
    due = recompute(RecordedCrunch(engine.log, lambda _: CONTRACT, CRUNCH_ID), parent, total_prize=10**9)
    right = run(
        [
            drawn_event._replace(outcome=1 - drawn_event.outcome) if drawn_event is wrong else drawn_event
            for drawn_event in events
        ]
    )
    keys = {row.model_id: row.key_units for row in paid(right)[0].ranking}
    assert {model.model_id: model.new.units for model in due.models} == keys
    assert {model.model_id: model.old.units for model in due.models} != keys
    assert set(keys) == set(MODELS)
    assert due.truths_differ == 1
