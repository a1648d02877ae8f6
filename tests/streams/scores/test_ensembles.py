"""Ensembles: combined and scored beside the models, with what was known when the round was asked."""

from __future__ import annotations

import random
import sys
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from tests.given import Given, given
from tests.streams.build import (
    HOUR,
    MINUTE,
    T0,
    UNIT,
    answers,
    configured,
    opened,
    received,
    resolved,
    shelf,
)

from coordinator.streams.contract import (
    CrunchContract,
    Ensemble,
    Member,
    MinScore,
    NoScore,
    RoundScores,
    ScoreResult,
    TopN,
)
from coordinator.streams.events import (
    CrunchConfigured,
    EnsemblesScored,
    EnsemblesScoredData,
    EnsembleTerms,
    RoundScored,
    ScoreEntry,
    StateCarried,
)
from coordinator.streams.scores.ensemble_rules import WEIGHT_ONE, weighted_mean, weights_of
from coordinator.streams.scores.stage import ScoreStage


class WithError(ScoreResult):
    error: float = 0.0


def by_error(prediction, truth):
    """The answer is the return in per cent."""
    error = prediction.value - 100 * truth.return_
    return {"value": -error * error, "error": error}


def terms_of(contract: CrunchContract) -> dict[str, Any]:
    ensembles = [
        EnsembleTerms(
            name=ensemble.name,
            hours=ensemble.hours if ensemble.looks_back else 0,
            error_field=ensemble.error_field,
        )
        for ensemble in contract.ensembles
    ]
    return {"ensembles": ensembles}


def stage(*ensembles: Ensemble, **fields: Any) -> Given:
    contract = CrunchContract(ensembles=list(ensembles), **fields)
    return (
        given(ScoreStage(shelf(contract)))
        .when("inputs", configured(**terms_of(contract)))
        .then(CrunchConfigured)
    )


def play(scene: Given, point: int, answers_by_model: dict[str, Any], **resolution: Any) -> Given:
    scene.when("predictions", opened(point, list(answers_by_model)))
    scene.when("predictions", *answers(point, answers_by_model))
    scene.when("inputs", received(point))
    return scene.when("inputs", resolved(point, **resolution))


def last(scene: Given) -> EnsemblesScoredData:
    return [event.data for event in scene.made if isinstance(event, EnsemblesScored)][-1]


def entry(scene: Given, name: str) -> ScoreEntry:
    (ensemble_entry,) = [row for row in last(scene).entries() if row.model_id == f"__ensemble_{name}__"]
    return ensemble_entry


def weights(scene: Given, name: str) -> dict[str, float]:
    data = last(scene)
    column = data.weights[data.models.index(f"__ensemble_{name}__")]
    pairs = zip(data.answered, column, strict=True)
    return {model_id: units / WEIGHT_ONE for model_id, units in pairs if units is not None}


# --- one round ---------------------------------------------------------------------------------------------------


def test_the_equal_mean_is_scored_like_a_models_answer():
    scene = play(stage(Ensemble(name="equal")), T0, {"b": 1.0, "a": 0.0, "c": "ABSENT", "d": "FAILED"})
    scene.then(RoundScored, EnsemblesScored)
    assert entry(scene, "equal").units == {"value": UNIT * 3 // 4}  # of 0.5: 2 * 0.5 - 0.25
    assert [bytes(output) for output in last(scene).outputs] == [b'{"value":0.5}']
    assert weights(scene, "equal") == {"a": 0.5, "b": 0.5}


def test_models_are_scored_the_same_with_and_without_ensembles():
    answers_by_model = {"b": 1.0, "a": 0.2, "c": "ABSENT"}
    with_one = play(
        stage(Ensemble(name="equal"), Ensemble(name="other", filter=TopN(n=1))), T0, answers_by_model
    )
    without = play(stage(), T0, answers_by_model)
    assert [event for event in with_one.made if isinstance(event, RoundScored)] == without.made[-1:]


def test_own_weights_and_an_own_filter_receive_the_members():
    seen: list[Member] = []

    def mine(members):
        seen[:] = members
        return [3 if member.model_id == "a" else 1 for member in members]

    scene = stage(Ensemble(name="mine", weights=mine, filter=lambda member: member.output.value >= 0))
    play(scene, T0, {"c": -1.0, "b": 0.0, "a": 1.0}).then(RoundScored, EnsemblesScored)
    assert weights(scene, "mine") == {"a": 0.75, "b": 0.25}
    assert [(member.model_id, member.player, member.output.value, member.scored) for member in seen] == [
        ("a", "a", 1.0, 0),
        ("b", "b", 0.0, 0),
    ]
    assert (seen[0].mean_score, seen[0].mean_squared_error) == (None, None)


class Side(BaseModel):
    side: str
    size: float


def by_size(prediction, truth):
    return {"value": prediction.size}


def most_of(outputs, shares):
    sides = sorted({output.side for output in outputs})
    size = sum(output.size * share for output, share in zip(outputs, shares, strict=True))
    return {"side": sides[-1], "size": size}


def test_answers_that_are_not_numbers_are_combined_by_the_contracts_own_function():
    fields = {"output_type": Side, "score_prediction": by_size}
    scene = stage(Ensemble(name="plain"), Ensemble(name="own", combine=most_of), **fields)
    play(scene, T0, {"a": {"side": "up", "size": 1.0}, "b": {"side": "down", "size": 3.0}})
    failed = entry(scene, "plain")
    assert (failed.status, failed.fault) == ("FAILED", "node")
    assert (
        failed.reason
        == "ensemble plain: ValueError: side is no number and not the same in all: give `combine`"
    )
    assert entry(scene, "own").units == {"value": 2 * UNIT}
    assert msgspec.json.decode(last(scene).outputs[1]) == {"side": "up", "size": 2.0}


def raising(*_):
    raise ZeroDivisionError("no")


def leaving(*_):
    sys.exit("bad")


BROKEN = {
    "weights that raise": Ensemble(name="x", weights=raising),
    "weights that leave": Ensemble(name="x", weights=leaving),
    "a weight too few": Ensemble(name="x", weights=lambda members: [1.0]),
    "weights of nothing": Ensemble(name="x", weights=lambda members: [0.0] * len(members)),
    "a weight that is no number": Ensemble(name="x", weights=lambda members: [float("nan"), 1.0]),
    "a weight below 0": Ensemble(name="x", weights=lambda members: [-1.0, 2.0]),
    "a filter that raises": Ensemble(name="x", filter=raising),
    "a filter that lets nobody in": Ensemble(name="x", filter=lambda member: False),
    "nobody with a past": Ensemble(name="x", filter=TopN(n=3)),
    "an answer that is not finite": Ensemble(name="x", combine=lambda *_: {"value": float("inf")}),
    "an answer of another type": Ensemble(name="x", combine=lambda *_: {"value": "up"}),
    "no answer": Ensemble(name="x", combine=lambda *_: None),
    "an answer too large": Ensemble(name="x", combine=lambda *_: {"value": 1.0, "more": "x" * 70_000}),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_ensemble_fails_alone(broken):
    scene = play(stage(broken, Ensemble(name="equal")), T0, {"a": 1.0, "b": 0.5}).then(
        RoundScored, EnsemblesScored
    )
    failed = entry(scene, "x")
    assert (failed.status, failed.fault, failed.units) == ("FAILED", "node", {})
    assert failed.reason.startswith("ensemble x: ")
    assert entry(scene, "equal").status == "SCORED"
    scored = next(event for event in scene.made if isinstance(event, RoundScored))
    assert all(row.status == "SCORED" for row in scored.data.entries())


def test_an_answer_without_a_score_yet_is_nobodys_fault():
    def later(prediction, truth):
        return NoScore("flat") if prediction.value == 0 else {"value": prediction.value}

    scene = play(stage(Ensemble(name="equal"), score_prediction=later), T0, {"a": 1.0, "b": -1.0})
    failed = entry(scene, "equal")
    assert (failed.status, failed.fault, failed.reason) == ("FAILED", "nobody", "flat")


def test_nobody_answered():
    scene = play(stage(Ensemble(name="equal")), T0, {"a": "ABSENT"}).then(RoundScored, EnsemblesScored)
    assert "nobody answered" in entry(scene, "equal").reason


def test_without_a_truth_there_is_no_ensemble():
    play(stage(Ensemble(name="equal")), T0, {"a": 0.5}, change=None).then(RoundScored)


def test_a_model_with_the_same_id_takes_the_place_of_the_ensemble():
    scene = play(stage(Ensemble(name="equal"), Ensemble(name="b")), T0, {"__ensemble_equal__": 0.5, "x": 1.0})
    assert last(scene).models == ["__ensemble_b__"]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_models_answer_never_matters(seed):
    rng = random.Random(seed)
    answers_by_model = {f"m{i}": rng.uniform(-1, 1) for i in range(40)} | {"x": "ABSENT", "y": "FAILED"}
    ensembles = [
        Ensemble(name="equal"),
        Ensemble(name="loud", weights=lambda members: [abs(member.output.value) for member in members]),
    ]
    shuffled = dict(rng.sample(list(answers_by_model.items()), len(answers_by_model)))
    in_order, other = (last(play(stage(*ensembles), T0, each)) for each in (answers_by_model, shuffled))
    assert msgspec.json.encode(in_order) == msgspec.json.encode(other)


# --- the past ----------------------------------------------------------------------------------------------------

PAST = [
    Ensemble(name="precise", weights="inverse_variance", error_field="error", hours=2),
    Ensemble(name="top", filter=TopN(n=1), hours=2),
    Ensemble(name="good", filter=MinScore(value=-1.0), hours=2),
]


def remembering(**fields: Any) -> Given:
    return stage(*PAST, score_type=WithError, score_prediction=by_error, **fields)


def hour_of(scene: Given, start: int, answers_by_model: dict[str, Any], **resolution: Any) -> Given:
    """Rounds that resolve in the hour after `start`."""
    for i in range(3):
        play(scene, start + i * MINUTE, answers_by_model, **resolution)
    return scene


def test_weights_depend_on_the_errors_of_the_hours_before_the_round():
    scene = hour_of(remembering(), T0, {"a": 2.0, "b": 3.0, "c": -9.0}, change=0.01)  # errors 1, 2, -10
    assert "its weights and filter let nobody in" in entry(scene, "precise").reason
    play(scene, T0 + HOUR, {"a": 1.0, "b": 0.0, "c": 0.0, "new": 5.0}, change=0.01)
    inverse = {"a": 1.0, "b": 1 / 4, "c": 1 / 100}
    assert weights(scene, "precise") == pytest.approx(
        {model_id: weight / sum(inverse.values()) for model_id, weight in inverse.items()}, abs=1e-9
    )
    assert weights(scene, "top") == {"a": 1.0}
    assert weights(scene, "good") == {"a": 1.0}
    assert entry(scene, "top").units == {"value": 0, "error": 0}


def test_nothing_that_became_known_after_the_round_was_asked_is_used():
    scene = hour_of(remembering(), T0, {"a": 2.0, "b": 3.0})
    answers_by_model = {"a": 100.0, "b": 3.0}
    # Asked in the next hour. Scores of the same hour do not count, because that period has not ended.
    hour_of(scene, T0 + HOUR, answers_by_model, change=0.01)
    assert weights(scene, "top") == {"a": 1.0}
    play(scene, T0 + 2 * HOUR, answers_by_model, change=0.01)
    assert weights(scene, "top") == {"b": 1.0}


def test_the_past_is_forgotten_after_the_contracts_number_of_hours():
    scene = hour_of(remembering(), T0, {"a": 2.0, "b": 3.0})
    play(scene, T0 + 2 * HOUR, {"a": 2.0, "b": 3.0})
    assert weights(scene, "top") == {"a": 1.0}
    play(scene, T0 + 5 * HOUR, {"a": 2.0, "b": 3.0})
    assert entry(scene, "top").status == "FAILED"
    play(scene, T0 + 9 * HOUR, {"a": 2.0, "b": 3.0})
    assert [past.end for past in scene.stage.state.own.past.values()] == [T0 + 6 * HOUR, T0 + 10 * HOUR]


def test_a_model_without_any_error_has_a_weight():
    exact = [
        Member(name, name, None, 3, 0.0, error) for name, error in (("a", 0.0), ("b", 1e-18), ("c", 1.0))
    ]
    weights_found = weights_of(PAST[0], exact, 1e-9)
    assert weights_found == [WEIGHT_ONE // 2, WEIGHT_ONE // 2, 0]


def test_squares_of_large_errors_are_exact():
    def squared(prediction, truth):
        return {"value": 0.0, "error": prediction.value}

    scene = play(stage(*PAST, score_type=WithError, score_prediction=squared), T0, {"a": 9e6, "b": 9e6 - 1})
    (period,) = scene.stage.state.own.past.values()
    squares = period.squares["error"]
    assert squares["a"] == [(9 * 10**15) ** 2, 1]
    own = scene.stage.state.own
    assert msgspec.json.decode(msgspec.json.encode(own), type=type(own)) == own


# --- rounds scored as a whole ------------------------------------------------------------------------------------


def against_the_best(round_answers, truth, context):
    values = [None if answer.output is None else answer.output.value for answer in round_answers]
    best = max(value for value in values if value is not None)
    states = {
        model_id: (context.states.get(model_id) or 0) + value
        for model_id, value in zip(round_answers.models, values, strict=True)
        if value is not None
    }
    shared = (context.shared or 0) + 1
    return RoundScores([value and value / best for value in values], states=states, shared=shared)


def test_in_a_round_scored_as_a_whole_the_ensemble_is_scored_beside_the_models():
    scene = stage(
        Ensemble(name="equal"), Ensemble(name="top", filter=TopN(n=1)), score_round=against_the_best
    )
    play(scene, T0, {"a": 1.0, "z": 3.0}).then(RoundScored, StateCarried, EnsemblesScored)
    assert entry(scene, "equal").units == {"value": 2 * UNIT // 3 + 1}
    assert bytes(last(scene).states["__ensemble_equal__"]) == b"2.0"
    play(scene, T0 + MINUTE, {"a": 2.0, "z": 4.0})
    assert bytes(last(scene).states["__ensemble_equal__"]) == b"5.0"
    carried = [event.data for event in scene.made if isinstance(event, StateCarried)][-1]
    assert {name: bytes(state) for name, state in carried.states.items()} == {"a": b"3.0", "z": b"7.0"}
    assert bytes(carried.shared[0]) == b"2"


def test_scores_of_a_whole_round_are_the_same_with_and_without_ensembles():
    seen: dict[tuple[str, ...], Any] = {}

    def looking(round_answers, truth, context):
        seen[tuple(round_answers.models)] = dict(context.states)
        return against_the_best(round_answers, truth, context)

    scene = stage(Ensemble(name="equal"), score_round=looking)
    for i in range(2):
        play(scene, T0 + i * MINUTE, {"a": 1.0, "z": 3.0})
    assert seen == {
        ("a", "z"): {"a": 1.0, "z": 3.0},
        ("__ensemble_equal__", "a", "z"): {"a": 1.0, "z": 3.0, "__ensemble_equal__": 2.0},
    }
    without = stage(score_round=against_the_best)
    for i in range(2):
        play(without, T0 + i * MINUTE, {"a": 1.0, "z": 3.0})
    round_events = [event for event in scene.made if isinstance(event, (RoundScored, StateCarried))]
    assert round_events == [event for event in without.made if isinstance(event, (RoundScored, StateCarried))]


def test_a_function_that_raises_with_the_ensemble_in_the_round_fails_the_ensemble_alone():
    def strict(round_answers, truth, context):
        if "__ensemble_equal__" in round_answers.models:
            raise KeyError("who is that")
        return {"value": round_answers.column("value")}

    scene = play(stage(Ensemble(name="equal"), score_round=strict), T0, {"a": 1.0}).then(
        RoundScored, EnsemblesScored
    )
    assert entry(scene, "equal").reason == "score_round: KeyError: 'who is that'"


# --- what can be combined ----------------------------------------------------------------------------------------


def test_numbers_are_combined_wherever_they_are_in_the_answer():
    first = {
        "path": [1.0, 2.0],
        "more": [{"w": 1, "kind": "normal"}],
        "grid": [[0, 0], [1, 1]],
        "none": None,
        "e": [],
    }
    other = {
        "path": [3.0, 4.0],
        "more": [{"w": 2, "kind": "normal"}],
        "grid": [[2, 2], [3, 3]],
        "none": None,
        "e": [],
    }
    assert weighted_mean([first, other], [0.75, 0.25]) == {
        "path": [1.5, 2.5],
        "more": [{"w": 1.25, "kind": "normal"}],
        "grid": [[0.5, 0.5], [1.5, 1.5]],
        "none": None,
        "e": [],
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([{"a": {"b": [1, "x"]}}, {"a": {"b": [1, "y"]}}], "a.b[1] is no number and not the same in all"),
        ([{"a": 1}, {"b": 1}], "the answer has not the same fields in all"),
        ([[1, 2], [1]], "the answer is a list of another length in some"),
        ([{"a": [[1, 2], [3, 4]]}, {"a": [[1, 2], [3]]}], "a[1] is a list of another length in some"),
        ([True, 1], "the answer is no number and not the same in all"),
        ([{"a": None}, {"a": 1.0}], "a is no number and not the same in all"),
    ],
)
def test_answers_that_cannot_be_combined_are_named(values, says):
    with pytest.raises(ValueError, match=says.replace("[", r"\[").replace(".", r"\.")):
        weighted_mean(values, [0.5, 0.5])


def test_a_list_of_numbers_and_a_single_number_combine_the_same():
    rng = random.Random(1)
    rows = [[rng.uniform(-1, 1) for _ in range(50)] for _ in range(30)]
    shares = [1 / 30] * 30
    alone = [weighted_mean([row[i] for row in rows], shares) for i in range(50)]
    assert weighted_mean(rows, shares) == alone
