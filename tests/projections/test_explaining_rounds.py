"""Explanations of a prediction whose contract scores rounds as a whole: from all answers to the figure."""

from __future__ import annotations

import msgspec
import pytest
from tests.explained import explained
from tests.projections.test_explaining import OF, ROUNDS, SETTINGS, Moody, the, values
from tests.streams.build import HASH, MINUTE, T0

from coordinator.projections.explaining import carried_state
from coordinator.streams.contract import CrunchContract, RoundScores
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.sources.generated import generated_candles


def against_the_mean(answers, truth, context):
    """The distance from the mean of the round's answers: no prediction has it by itself."""
    numbers = [
        (name, answer.value) for name, answer in zip(answers.models, answers.outputs, strict=True) if answer
    ]
    mean = sum(value for _, value in numbers) / len(numbers) if numbers else 0.0
    return [None if answer is None else {"value": answer.value - mean} for answer in answers.outputs]


def what_it_was_before(answers, truth, context):
    """The number of rounds before: what earlier rounds carried decides."""
    count = (context.shared or 0) + 1
    scores = [None if answer is None else {"value": float(count)} for answer in answers.outputs]
    return RoundScores(scores, shared=count)


def what_each_was_before(answers, truth, context):
    """The number of rounds before, which each model has for itself."""
    counts = {model_id: (context.states.get(model_id) or 0) + 1 for model_id in answers.models}
    scores = [
        None if answer is None else {"value": float(counts[model_id])}
        for model_id, answer in zip(answers.models, answers.outputs, strict=True)
    ]
    return RoundScores(scores, states=counts)


@pytest.fixture
def played(tmp_path):
    """`played(score_round)` -> (the explainer, the read models)."""
    opened = []

    def play(score_round):
        contract = CrunchContract(score_round=score_round, absence_policy="worst")
        engine = Engine(
            lambda _: contract, Functions({"moody": Moody(), "flat": lambda data, call: {"value": 0.1}})
        )
        engine.configure(make_terms(contract, HASH, SETTINGS, 0))
        for candle in generated_candles(OF, T0, T0 + (ROUNDS // 5) * MINUTE, seed=3):
            engine.feed(candle.at, [candle])
        node = explained(engine.log, tmp_path, lambda _: contract)
        opened.append(node.read)
        return node

    yield play
    for read in opened:
        read.close()


def scored(node):
    for prediction in node.read.predictions.newest(0, 1 << 50):
        if prediction.status in ("SCORED", "FAILED", "ABSENT") and not prediction.hidden:
            yield (
                prediction,
                node.explainer.prediction(
                    node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
                ),
            )


def test_each_score_and_charge_of_a_whole_round_is_computed_again(played):
    seen = set()
    for prediction, explanation in scored(played(against_the_mean)):
        score = the(explanation, "score")
        assert (score.agrees, score.note) == (True, ""), explanation
        assert values(score)["answers_of_the_round"] == "2"
        seen.add(prediction.status)
    assert "SCORED" in seen
    assert len(seen) > 1


def test_an_altered_score_of_a_whole_round_is_reported_as_different(played, monkeypatch):
    node = played(against_the_mean)
    prediction, _ = next(pair for pair in scored(node) if pair[0].status == "SCORED")
    appends = node.appends.of("scores")

    for decision in appends.values():
        for number, event in enumerate(decision.events):
            data = event.data
            if getattr(data, "input_id", "") == prediction.input_id and hasattr(data, "units"):
                units = {
                    name: [None if u is None else u + 1 for u in column]
                    for name, column in data.units.items()
                }
                changed = msgspec.structs.replace(event, data=msgspec.structs.replace(data, units=units))
                decision.events[number] = changed
    explanation = node.explainer.prediction(
        node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
    )
    assert the(explanation, "score").agrees is False
    assert "computed again: SCORED" in the(explanation, "score").note


def test_a_score_that_depends_on_carried_state_is_computed_again_with_it(played):
    node = played(what_it_was_before)
    count = 0
    for prediction, told in scored(node):
        state = values(the(told, "state"))
        assert the(told, "state").agrees is True
        if prediction.status == "SCORED":
            count += 1
            assert (the(told, "score").agrees, the(told, "score").note) == (True, "")
            after = int(state["after, of all models"])
            assert values(the(told, "score"))["value"] == str(after * 10**9)
            assert int(state.get("before, of all models", "0")) == after - 1
    assert count > 10


def test_with_too_many_states_the_score_is_not_called_different(played, monkeypatch):
    monkeypatch.setattr(carried_state, "STATES_MAX", 0)
    notes = [
        the(told, "score")
        for prediction, told in scored(played(what_each_was_before))
        if prediction.status == "SCORED"
    ]
    assert len(notes) > 10
    assert {step.agrees for step in notes} == {True, None}  # only the first round began without any state
    assert any("may rest on what earlier rounds carried" in step.note for step in notes)
