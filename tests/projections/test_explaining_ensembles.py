"""Explanations of an ensemble's answer: past scores, members, weights, arithmetic, truth and score are each computed
again.
"""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.explained import explained, the, values
from tests.projections.test_explaining import OF, SETTINGS, Moody
from tests.streams.build import HASH, MINUTE, T0

from coordinator.projections.explaining import ensemble as gathering
from coordinator.projections.explaining.typed_ids import UnknownFigureError
from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.streams.contract import (
    CrunchContract,
    Ensemble,
    MinScore,
    RoundScores,
    ScoreResult,
    TopN,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.events import EnsemblesScored
from coordinator.streams.log.ids import ensemble_id
from coordinator.streams.sources.generated import generated_candles

ROUNDS = 100


class Measured(ScoreResult):
    error: float = 0.0


def measured(prediction, truth):
    error = prediction.value - 100 * truth.return_
    return {"value": -error * error, "error": error}


def largest(outputs, shares):
    return max(outputs, key=lambda output: abs(output.value))


ENSEMBLES = [
    Ensemble(name="equal"),
    Ensemble(name="precise", weights="inverse_variance", error_field="error", hours=1),
    Ensemble(name="best", filter=TopN(n=2), hours=1),
    Ensemble(name="good", filter=MinScore(value=-0.2), hours=1),
    Ensemble(
        name="own",
        weights=lambda members: [1.0 + len(member.model_id) for member in members],
        filter=lambda member: member.model_id != "flat",
        combine=largest,
        hours=1,
    ),
    Ensemble(name="broken", combine=lambda outputs, shares: 1 / 0),
]
MODELS = {"flat": 0.1, "down": -0.5, "up": 0.4}


def played(contract, rounds=ROUNDS):
    functions = {name: lambda data, call, value=value: {"value": value} for name, value in MODELS.items()}
    engine = Engine(lambda _: contract, Functions({"moody": Moody(), **functions}))
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    for candle in generated_candles(OF, T0, T0 + (rounds - 1) * MINUTE, seed=3):
        engine.feed(candle.at, [candle])
    return engine


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    contract = CrunchContract(score_type=Measured, score_prediction=measured, ensembles=ENSEMBLES)
    node = explained(played(contract).log, tmp_path_factory.mktemp("ensembles"), lambda _: contract)
    yield node
    node.read.close()


def scored(node):
    return [
        event
        for decision in node.appends.of("scores").values()
        for event in decision.events
        if isinstance(event, EnsemblesScored)
    ]


def ask(node, data, model_id, read=None):
    return node.explainer.prediction(read or node.read, f"{data.input_id}/{data.scope_key}/{model_id}")


def test_each_answer_of_each_ensemble_is_computed_again_and_agrees(node):
    rounds = scored(node)
    assert len(rounds) > 90
    statuses = set()
    for event in rounds[::11]:
        data = event.data
        for place, entry in enumerate(data.entries()):
            told = ask(node, data, entry.model_id)
            assert told.kind == "ensemble"
            assert told.agrees, told
            steps = {step.name: step for step in told.steps}
            assert [step.name for step in told.steps if step.agrees] == [
                "members", "answer", "truth", "score",
            ], told  # fmt: skip
            assert [value.name for value in steps["members"].inputs] == data.answered
            output = json.loads(bytes(data.outputs[place]))
            if entry.status == "SCORED":
                assert json.loads(values(steps["answer"])["output"]) == output
                assert values(steps["score"])["value"] == str(entry.units["value"])
            else:
                assert values(steps["answer"])["reason"] == entry.reason
            statuses.add((entry.model_id, entry.status))
    assert (ensemble_id("broken"), "FAILED") in statuses
    assert {name for name, status in statuses if status == "SCORED"} == {
        ensemble_id(ensemble.name) for ensemble in ENSEMBLES if ensemble.name != "broken"
    }


def test_an_explanation_names_the_answers_used_their_weights_and_the_scores_that_decided_them(node):
    data = scored(node)[-1].data
    told = ask(node, data, ensemble_id("precise"))
    weights = dict(zip(data.answered, data.weights[data.models.index(told.id.split("/")[-1])], strict=True))
    members = the(told, "members")
    assert {value.name: value.exact for value in members.inputs} == {
        name: "null" if weight is None else str(weight) for name, weight in weights.items()
    }
    assert {value.source.kind for value in the(told, "answer").inputs} == {"ScopeAnswered"}
    past = the(told, "past scores")
    assert {value.source.kind for value in past.inputs} == {"RoundScored"}
    assert int(values(past)["rounds"]) == len(past.inputs) + past.left_out > 40
    assert "mean_squared_error" in values(past)["flat"]
    for source in [value.source for step in told.steps for value in step.inputs if value.source]:
        decision = node.appends.of(source.topic)[source.offset]
        assert any(event.id == source.event_id for event in decision.events)
    assert the(ask(node, data, ensemble_id("equal")), "members").rule.startswith("All models that answered")
    assert "past scores" not in {step.name for step in ask(node, data, ensemble_id("equal")).steps}


def test_an_altered_weight_answer_or_score_is_reported_as_different(node, monkeypatch):
    event = scored(node)[-2]
    data = event.data
    place = data.models.index(ensemble_id("best"))
    weights = [*data.weights]
    weights[place] = [None if weight is None else weight + 1 for weight in weights[place]]
    outputs = [*data.outputs]
    outputs[place] = msgspec.Raw(b'{"value":0.125}')
    units = {name: [None if u is None else u + 1 for u in column] for name, column in data.units.items()}
    for changed, step in (
        ({"weights": weights}, "members"),
        ({"outputs": outputs}, "answer"),
        ({"units": units}, "score"),
    ):
        decision = next(
            appended for appended in node.appends.of("scores").values() if event in appended.events
        )
        at = decision.events.index(event)
        decision.events[at] = msgspec.structs.replace(event, data=msgspec.structs.replace(data, **changed))
        told = ask(node, data, ensemble_id("best"))
        decision.events[at] = event
        assert told.agrees is False
        assert [step_.name for step_ in told.steps if step_.agrees is False] == [step]
        assert "computed again" in the(told, step).note


def test_as_of_the_past_it_is_explained_after_its_round_was_scored_and_not_before(node):
    data = scored(node)[40].data
    for at, is_scored in ((data.resolvable_at, True), (data.resolvable_at - 1, False)):
        then = PastReadModels(node.read, cuts_at(node.read, at, folded_until(node.read)))
        if is_scored:
            assert ask(node, data, ensemble_id("best"), then).agrees is True
        else:
            with pytest.raises(UnknownFigureError, match="once its round is scored"):
                ask(node, data, ensemble_id("best"), then)


def test_an_unknown_ensemble_is_refused(node):
    data = scored(node)[-1].data
    with pytest.raises(UnknownFigureError, match="has no ensemble"):
        ask(node, data, ensemble_id("other"))


def test_weights_that_depend_on_too_many_rounds_are_shown_and_the_arithmetic_is_still_computed_again(
    node, monkeypatch
):
    monkeypatch.setattr(gathering, "ROUNDS_MAX", 20)
    data = scored(node)[-1].data
    told = ask(node, data, ensemble_id("precise"))
    assert the(told, "members").agrees is None
    assert "20 rounds or more" in the(told, "members").note
    assert the(told, "answer").agrees is True
    assert the(told, "score").agrees is True


def test_an_ensemble_of_a_round_that_is_scored_as_a_whole_is_explained(tmp_path):
    def together(answers, truth, context):
        mean = sum(answer.output.value for answer in answers if answer.output) / len(MODELS)
        return [
            None if answer.output is None else {"value": answer.output.value - mean} for answer in answers
        ]

    def carried(answers, truth, context):
        count = (context.shared or 0) + 1
        return RoundScores(
            [None if answer.output is None else {"value": float(count)} for answer in answers], shared=count
        )

    for number, function in enumerate((together, carried)):
        contract = CrunchContract(score_round=function, ensembles=[Ensemble(name="equal")])
        node = explained(played(contract, 30).log, tmp_path / str(number), lambda _, c=contract: c)
        verdicts = []
        for event in scored(node):
            told = ask(node, event.data, ensemble_id("equal"))
            assert the(told, "answer").agrees
            verdicts.append(the(told, "score").agrees)
            if verdicts[-1] is None:
                assert "may rest on what earlier rounds carried" in the(told, "score").note
        assert set(verdicts) == ({True, None} if number else {True})
        node.read.close()
