"""The part of a model in posted questions, and the proof of one answer: the answer that counted, in its round."""

from __future__ import annotations

from tests.given import given
from tests.streams.asked import Q, all_answered, asked, asks, came, closed, the_round
from tests.streams.build import MINUTE, T0, configured, shelf

from coordinator.streams.events import RoundScored
from coordinator.streams.evidence.participation import _part
from coordinator.streams.evidence.prediction_proof import _predictions
from coordinator.streams.scores.stage import ScoreStage


def scored() -> tuple[list, RoundScored, list]:
    contract = asks()
    assert contract.questions is not None
    scene = given(ScoreStage(shelf(contract))).when(
        "inputs", configured(questions=contract.questions.terms())
    )
    first = the_round("", {"a": 0.1, "b": 0.2}, T0)
    again = the_round("~2", {"a": 0.9, "b": "ABSENT"}, T0 + MINUTE)
    inputs = [asked(), asked(2, T0 + MINUTE), closed(), came(1.0, T0 + 90 * MINUTE)]
    scene.when("predictions", *first).when("predictions", *again).when("predictions", all_answered("", "~2"))
    return [*first, *again], scene.when("inputs", *inputs).only(RoundScored), inputs


def test_a_part_has_the_answer_that_counted():
    _, event, _ = scored()
    answers = {(Q, "question"): {Q: ("old", ""), f"{Q}~2": ("new", "")}}
    parts = [_part(event.data, model, answers) for model in ("a", "b")]
    assert [(part.answer, part.other_answers) for part in parts] == [
        ("new", {Q: "old"}),
        ("old", {f"{Q}~2": "new"}),
    ]


def test_a_proof_names_the_round_of_the_answer():
    predictions, event, inputs = scored()
    events = [
        *(("predictions", event) for event in predictions),
        *(("inputs", event) for event in inputs),
        ("scores", event),
    ]
    proved = {
        prediction.prediction_id: (prediction.status, prediction.answer)
        for prediction in _predictions(events, 1)
    }
    assert proved == {
        f"{Q}/question/a": ("REPLACED", '{"value":0.1}'),
        f"{Q}~2/question/a": ("SCORED", '{"value":0.9}'),
        f"{Q}/question/b": ("SCORED", '{"value":0.2}'),
        f"{Q}~2/question/b": ("ABSENT", "null"),
    }
