"""Explanations of answers to posted questions: asked again, replaced, void, with a corrected truth, resolved by a feed."""

from __future__ import annotations

import msgspec
import pytest
from tests.explained import explained, the, values
from tests.streams.engine import test_questions_played as questions

from coordinator.projections.explaining.typed_ids import UnknownFigureError
from coordinator.streams.log.counting import Decision


@pytest.fixture(scope="module")
def events():
    return questions.drawn(60, seed=60)


@pytest.fixture(scope="module")
def node(events, tmp_path_factory):
    log = questions.run(events).log
    node = explained(log, tmp_path_factory.mktemp("explained"), lambda _: questions.CONTRACT)
    yield node
    node.read.close()


def the_id(prediction):
    return f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"


def test_each_answer_to_a_question_is_explained_and_every_step_agrees(node):
    predictions = [*node.read.predictions.newest(0, 1 << 50)]
    seen = set()
    for prediction in predictions:
        explanation = node.explainer.prediction(node.read, the_id(prediction))
        assert explanation.id == the_id(prediction)
        assert {step.name: step.agrees for step in explanation.steps if step.agrees is False} == {}
        assert the(explanation, "input").agrees
        assert the(explanation, "answers that count").agrees
        names = [step.name for step in explanation.steps]
        assert names[:6] == ["rules", "input", "round", "answer", "answers that count", "truth"]
        counts = values(the(explanation, "answers that count"))["counts_in_round"]
        if counts == (f"~{prediction.input_id.partition('~')[2] or 1}"):
            assert names[6:] == ["score", "counted in"]
            assert the(explanation, "score").agrees
        else:
            assert names[6:] == []  # the answer that replaced it has the score
        if prediction.status == "SCORED":
            assert values(the(explanation, "score"))["value"] == str(prediction.score_units["value"])
            assert the(explanation, "truth").agrees
        seen.add((prediction.status, "~" in prediction.input_id))
    assert seen >= {("SCORED", False), ("SCORED", True), ("FAILED", False)}


def test_a_corrected_truth_is_explained_with_the_previous_one(node, events):
    for posted in (event for event in events if event.corrected):
        (round_id,) = [f"inp/questions/r/{posted.name}"]
        explanation = node.explainer.prediction(
            node.read, f"{round_id}/{node.read.rounds.question('r', posted.name).asked.scope_key}/bold"
        )
        assert explanation.agrees
        assert values(the(explanation, "truth"))["revision"] == "1"
        kinds = {source.kind for source in the(explanation, "score").sources}
        assert kinds == {"RoundRescored"}
        assert "RoundScored" in {
            value.source.kind for value in the(explanation, "score").inputs if value.source
        }
        expected = questions.units("bold", posted, posted.corrected[1])
        assert values(the(explanation, "score"))["value"] == str(expected)


def test_events_and_positions_are_those_of_the_log(node):
    prediction = next(
        p for p in node.read.predictions.newest(0, 1 << 50) if p.status == "SCORED" and "~" in p.input_id
    )
    explanation = node.explainer.prediction(node.read, the_id(prediction))
    sources = [source for step in explanation.steps for source in step.sources]
    sources += [value.source for step in explanation.steps for value in step.inputs if value.source]
    assert {source.topic for source in sources} >= {"feeds", "inputs", "predictions", "scores"}
    for source in sources:
        decision = node.appends.of(source.topic)[source.offset]
        event = next(event for event in decision.events if event.id == source.event_id)
        assert (type(event).__name__, event.at) == (source.kind, source.at_ms)


def test_an_altered_score_of_a_question_is_reported_as_different(node, monkeypatch):
    prediction = next(
        p
        for p in node.read.predictions.newest(0, 1 << 50)
        if p.status == "SCORED" and len(str(p.score_units["value"])) == 9
    )
    read_appends = node.appends

    def altered(wanted):
        decisions = dict(read_appends(wanted))
        for (topic, offset), decision in decisions.items():
            if topic == "scores":
                bodies = tuple(
                    msgspec.Raw(
                        bytes(body).replace(str(prediction.score_units["value"]).encode(), b"123456789")
                    )
                    for body in decision.bodies
                )
                decisions[topic, offset] = Decision(
                    topic, decision.first_offset, offset, decision.seq, decision.before, decision.upto, decision.need, bodies,
                )  # fmt: skip
        return decisions

    monkeypatch.setattr(node.explainer, "appends", altered)
    explanation = node.explainer.prediction(node.read, the_id(prediction))
    assert the(explanation, "score").agrees is False
    assert str(prediction.score_units["value"]) in the(explanation, "score").note


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("inp/questions/r/nothing/question/bold", "or inp/questions/ROUND/QUESTION/question/MODEL"),
        ("inp/questions/r/q1~99/question/bold", "it was not asked, or its answer is not recorded yet"),
        ("inp/questions/r/q1", "was asked for the scopes question"),
    ],
)
def test_an_id_of_an_unknown_question_is_refused(node, name, says):
    with pytest.raises(UnknownFigureError, match=says):
        node.explainer.prediction(node.read, name)


def test_a_correction_that_changes_nothing_of_a_model_does_not_stand_in_the_way_of_another(tmp_path):
    """Two truths are corrected on one day. By the first one, of an earlier period, `even` scores as before: so its
    snapshot restates the later period alone, and the rounds of the earlier one are needed to see that.
    """
    day, hour = questions.DAY, questions.HOUR
    start = questions.T0

    def posted(name, opens, corrected):
        opens_at = start + opens * day
        return questions.Posted(
            name, opens_at, opens_at + hour, opens_at + 2 * hour, 1.0, corrected, is_void=False, lean=0.9
        )

    events = [
        posted("q1", 1, (start + 10 * day + hour, 0.0)),
        posted("q2", 5, (start + 10 * day + 2 * hour, 0.5)),
    ]
    node = explained(questions.run(events).log, tmp_path, lambda _: questions.CONTRACT)
    try:
        explanation = node.explainer.snapshot(node.read, "even", start + 10 * day)
        (restated,) = node.read.snapshots.get("even", start + 11 * day)[1].restated
        assert restated.period_start == start + 5 * day
        assert the(explanation, "earlier periods").agrees is True, explanation
    finally:
        node.read.close()
