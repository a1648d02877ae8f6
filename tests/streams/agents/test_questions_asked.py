"""The predict worker and posted questions: which models are asked again, answers that are handed in, and when all
answers are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError
from pydantic import BaseModel, field_validator
from tests.predict_scene import Scene
from tests.streams.asked import CLOSES, SCOPE, Q, asked, asks, closed
from tests.streams.build import MINUTE, T0

from coordinator.streams import events as ev
from coordinator.streams.agents.predict import submissions
from coordinator.streams.agents.predict.worker import NOTICE_SECONDS
from coordinator.streams.log import ids
from coordinator.streams.predictions import questions as predictions_questions
from coordinator.streams.predictions.replies import OWN_CHECK

Make = Callable[..., Awaitable[Scene]]


def good(method: str, _arguments: Any) -> Any:
    return None if method == "tick" else {"value": 0.5}


def broken(method: str, _arguments: Any) -> Any:
    return None if method == "tick" else {"value": "no number"}


@pytest.fixture
async def scene() -> AsyncIterator[Make]:
    scenes: list[Scene] = []

    async def make(**behaviours: Any) -> Scene:
        scene = Scene(asks())
        for model_id, behaviour in behaviours.items():
            scene.gateway.join(model_id, behaviour)
        scene.tick(T0)
        await scene.start()
        scenes.append(scene)
        return scene

    yield make
    for scene in scenes:
        if scene.tenure is not None:
            await scene.tenure.close()


def submit(
    value: Any = 0.75,
    at: int = T0 + MINUTE,
    *,
    name: str = "cmd/1",
    question_ids: tuple[str, ...] = ("q1",),
    model_id: str = "x",
    sha256: str = "a" * 64,
    scope_key: str = SCOPE,
) -> ev.SubmitAnswers:
    answers = [
        ev.SubmittedAnswer(
            question_id=question_id,
            scope_key=scope_key,
            output=msgspec.Raw(msgspec.json.encode({"value": value})),
        )
        for question_id in question_ids
    ]
    data = ev.SubmitAnswersData(
        round_id="r1", model_id=model_id, cruncher_id="c1", answers=answers, sha256=sha256
    )
    return ev.SubmitAnswers(id=name, at=at, data=data)


def rounds(play: Scene) -> dict[str, list[str]]:
    """Round -> the models on its roster."""
    return {
        event.data.input_id[len(Q) :]: [entry.model_id for entry in event.data.roster]
        for decision in play.decisions()
        for event in decision
        if isinstance(event, ev.RoundOpened)
    }


def closes(play: Scene) -> list[ev.AnswersClosedData]:
    return [
        event.data
        for decision in play.decisions()
        for event in decision
        if isinstance(event, ev.AnswersClosed)
    ]


async def decided(play: Scene, count: int) -> None:
    """The worker reads `commands` by itself, twice a second."""
    await play.until(lambda: len(play.decisions()) >= count)


async def test_models_without_a_valid_answer_are_asked_again(scene):
    play = await scene(a=good, b=broken, c=good)
    play.asked(asked(), asked(2, T0 + MINUTE, whom="missing"), asked(3, T0 + 2 * MINUTE))
    await play.deliver()
    assert rounds(play) == {"": ["a", "b", "c"], "~2": ["b"], "~3": ["a", "b", "c"]}


async def test_a_model_that_joins_late_counts_as_missing_too(scene):
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    play.gateway.join("late", good)
    play.asked(asked(2, T0 + MINUTE, whom="missing"), asked(3, T0 + 2 * MINUTE, whom="missing"))
    await play.deliver()
    assert rounds(play) == {"": ["a"], "~2": ["late"], "~3": []}


async def test_a_close_lists_its_rounds(scene):
    play = await scene(a=good)
    play.asked(asked(), asked(2, T0 + MINUTE), closed())
    await play.deliver()
    assert [(data.input_id, data.rounds) for data in closes(play)] == [(Q, ["", "~2"])]
    assert play.tenure is not None
    assert play.tenure.stage.state.own.questions == {}


async def test_a_close_waits_for_the_running_round_and_no_other(scene):
    gate = asyncio.Event()

    async def slow(method: str) -> Any:
        if method == "predict":
            await gate.wait()
        return None if method == "tick" else {"value": 0.1}

    play = await scene(a=lambda method, _: slow(method))
    other = Q.replace("q1", "q2")
    play.asked(asked(), closed(T0 + MINUTE), asked(question=other))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: other in str(play.decisions()))  # the question after it is asked meanwhile
    assert closes(play) == []
    gate.set()
    await delivering
    assert [data.input_id for data in closes(play)] == [Q]
    assert play.tenure is not None
    assert [*play.tenure.stage.state.own.questions] == [other]
    assert play.tenure.stage.state.arrived == {}


async def test_questions_of_the_same_time_do_not_end_each_other(scene):
    play = await scene(a=good)
    play.asked(*(asked(at=T0 + n, question=Q.replace("q1", f"q{n}")) for n in range(20)))
    await play.deliver()
    assert play.missed() == []


async def test_an_owner_that_dies_before_the_close_is_written_writes_it_later(scene):
    async def never(method: str) -> Any:
        if method == "predict":
            await asyncio.Event().wait()

    play = await scene(a=lambda method, _: never(method))
    play.asked(asked(), closed(T0 + MINUTE))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: len(play.decisions()) == 1)
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    await play.start()
    await decided(play, 2)
    assert play.missed() == [("a", "node", "the node restarted during the round")]
    assert [data.rounds for data in closes(play)] == [[""]]


async def test_an_answer_waits_while_the_broker_cannot_tell_whether_its_question_is_still_to_come(
    scene, monkeypatch
):
    play = await scene(a=good)
    play.asked(asked())  # in the log, but not delivered yet
    reader = play.tenure._readers["inputs"]

    async def no_answer() -> int:
        raise KafkaTimeoutError("no answer")

    with monkeypatch.context() as silence:
        silence.setattr(reader, "end", no_answer)
        play.tick(T0 + 2 * MINUTE)
        play.command(submit())
        await asyncio.sleep(3 * NOTICE_SECONDS)
        assert play.decisions() == []
    await play.deliver()
    await decided(play, 3)
    assert [models for round_id, models in rounds(play).items() if round_id] == [["x"]]


async def test_an_answer_that_is_handed_in_is_a_round_of_its_own(scene):
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    play.tick(T0 + 2 * MINUTE)
    play.command(submit())
    await decided(play, 3)
    play.asked(closed())
    await play.deliver()
    suffix = ids.asking_suffix(ids.submission_input_id(Q, "cmd/1", "x", "a" * 64))
    assert rounds(play) == {"": ["a"], suffix: ["x"]}
    ((event, entry),) = play.answers()[2]
    assert (entry.status, bytes(entry.output), event.at) == ("PENDING", b'{"value":0.75}', T0 + MINUTE)
    assert [data.rounds for data in closes(play)] == [["", suffix]]


async def test_a_repeated_command_makes_one_round(scene):
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    play.tick(T0 + 2 * MINUTE)
    play.command(submit())
    play.command(submit())
    play.command(submit(name="cmd/2"))  # the same answers, handed in again, are newer than others in between
    await decided(play, 5)
    assert len(rounds(play)) == 3


async def test_a_model_hands_in_a_bounded_number_of_answers_to_a_question(scene, monkeypatch):
    monkeypatch.setattr(predictions_questions, "SUBMITTED_MAX", 2)
    letters: list[str] = []

    async def keep(_topic: str, _offset: int, _body: bytes, reason: str) -> None:
        letters.append(reason)

    play = await scene(a=good)
    play.tenure._submissions._on_garbage = keep
    play.asked(asked())
    await play.deliver()
    play.tick(T0 + 2 * MINUTE)
    for number in range(4):
        play.command(submit(name=f"cmd/{number}"))
    play.command(submit(name="cmd/1"))  # sent twice: it is recorded, and not refused
    play.command(submit(name="cmd/other", model_id="y"))
    await decided(play, 8)
    assert list(rounds(play).values()) == [["a"], ["x"], ["x"], ["y"]]
    assert letters == ["q1: 2 answers of this model to it are recorded, and no more are taken"] * 2


async def test_answers_handed_in_in_time_count_although_the_node_was_down(scene):
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    assert play.tenure is not None
    await play.tenure.close()
    play.tenure = None
    play.command(submit(at=CLOSES - 1))
    play.tick(CLOSES + MINUTE)
    play.asked(closed())
    await play.start()
    await decided(play, 4)
    assert [len(data.rounds) for data in closes(play)] == [2]


EARLY = T0 + 2 * MINUTE
"""When a question is closed by a post, as by one of its truth: long before `closes_at`."""


@pytest.mark.parametrize(("at", "counts"), [(EARLY - 1, True), (EARLY, False)])
async def test_answers_handed_in_after_an_early_close_do_not_count_although_the_node_was_down(
    scene, at, counts
):
    """Its truth may be known by then. A node that comes to the close later must not take them first."""
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    assert play.tenure is not None
    await play.tenure.close()
    play.tenure = None
    play.command(submit(at=at))
    play.tick(EARLY + MINUTE)
    play.asked(closed(EARLY))
    await play.start()
    await decided(play, 4)
    assert [len(data.rounds) for data in closes(play)] == [1 + counts]


async def test_an_early_close_that_is_in_the_log_and_not_delivered_yet_holds_for_answers(scene):
    """As the one above, at a node that runs: it looks at `commands` twice a second, whatever waits in `inputs`."""
    play = await scene(a=good)
    play.asked(asked())
    await play.deliver()
    play.asked(closed(EARLY))  # in the log, but not delivered yet
    play.tick(EARLY + MINUTE)
    play.command(submit(at=EARLY))
    await decided(play, 3)
    await play.deliver()
    assert [len(data.rounds) for data in closes(play)] == [1]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (submit(at=CLOSES + 5), "answers closed at"),
        (submit("high"), "value: Input should be a valid number"),
        (submit(question_ids=("q1", "q9")), "no such question is open"),
        (submit(question_ids=("q1", "q1")), "answered twice"),
        (submit(question_ids=()), "there is none"),
        (submit(scope_key="other"), "its scope is question"),
        (submit(model_id=""), "no name of a model"),
    ],
)
async def test_a_refusal_has_its_reason_and_nothing_of_the_command_is_recorded(scene, command, why):
    letters: list[tuple[str, int, str]] = []

    async def keep(topic: str, offset: int, _body: bytes, reason: str) -> None:
        letters.append((topic, offset, reason))

    play = await scene(a=good)
    assert play.tenure is not None
    play.tenure._submissions._on_garbage = keep
    play.asked(asked())
    await play.deliver()
    play.tick(CLOSES + 10)
    play.command(command)
    await decided(play, 3)
    assert play.decisions()[2] == []  # decided, without a result
    assert [*rounds(play)] == [""]
    assert len(letters) == 1
    assert letters[0][:2] == ("commands", 0)
    assert why in letters[0][2]


async def test_a_report_of_a_model_that_keeps_failing_at_a_question_does_not_reveal_its_answer(scene):
    """It comes back as a notice, which the API shows to everybody before the close. The client library logs it too."""

    class Quoting(BaseModel):
        value: float

        @field_validator("value")
        @classmethod
        def _check(cls, value: float) -> float:
            raise ValueError(f"{value} is no probability")

    play = await scene(a=lambda method, _arguments: None if method == "tick" else {"value": 0.31415927})
    play.contract = asks(output_type=Quoting, model_strikes_max=1)
    play.asked(asked())
    await play.deliver()
    assert [("0.31415927" in reason) for _, _, reason in play.missed()] == [True]  # after the close
    ((model_id, _, reason),) = play.gateway.reports
    assert (model_id, OWN_CHECK in reason, "0.314" in reason) == ("a", True, False)
    await play.until(lambda: any("ModelFailureReported" in kinds for kinds in play.kinds("models")))
    assert "0.314" not in repr(play.decisions("models"))


def other_command(number: int) -> ev.BanModel:
    return ev.BanModel(
        id=f"ban/{number}", at=T0, data=ev.BanModelData(model_id=f"b{number}", reason="copied")
    )


async def test_the_next_owner_does_not_read_very_old_commands(scene, monkeypatch):
    monkeypatch.setattr(submissions, "EMPTY_DECISION_EVERY", 5)
    play = await scene(a=good)
    for number in range(12):
        play.command(other_command(number))
    await play.until(lambda: play.tenure.stage.need["commands"].offset == 12)
    await play.start()
    assert play.tenure.stage.need["commands"].offset == 12
    play.asked(asked())
    await play.deliver()
    play.tick(T0 + 2 * MINUTE)
    play.command(submit())
    await play.until(lambda: len(rounds(play)) == 2)


async def test_answers_that_wait_for_their_question_are_not_skipped(scene, monkeypatch):
    monkeypatch.setattr(submissions, "EMPTY_DECISION_EVERY", 5)
    play = await scene(a=good)
    play.asked(asked())  # but not delivered yet
    play.command(submit())
    for number in range(12):
        play.command(other_command(number))
    await play.until(lambda: play.tenure.models.need["commands"].offset == 13)
    await play.tenure._decide_submissions()
    assert play.tenure.stage.need["commands"].offset == 0
    play.tick(T0 + 2 * MINUTE)
    await play.start()
    await play.deliver()
    await play.until(lambda: len(rounds(play)) == 2)
    await play.until(lambda: play.tenure.stage.need["commands"].offset == 13)
