"""Rounds scored as a whole by `score_round`, and the state that they carry."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import BaseModel
from tests.given import Given, given
from tests.streams.build import (
    MINUTE,
    SUBJECT,
    T0,
    UNIT,
    answers,
    configured,
    opened,
    received,
    resolved,
    shelf,
)

from coordinator.streams.contract import CrunchContract, Failed, RoundScores, ScheduledPrediction, ScoreResult
from coordinator.streams.events import CrunchConfigured, RoundScored, ScoreEntry, StateCarried
from coordinator.streams.scores import whole_rounds
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.scores.units import NotRecordableError, column_to_units, to_units


def stage(score_round: Any, terms: dict[str, Any] | None = None, **fields: Any) -> Given:
    contract = CrunchContract(score_round=score_round, **fields)
    all_terms = {"absence_policy": contract.absence_policy} | (terms or {})
    return given(ScoreStage(shelf(contract))).when("inputs", configured(**all_terms)).then(CrunchConfigured)


def play(scene: Given, point: int, answers_by_model: dict[str, Any], **resolution: Any) -> Given:
    scene.when("predictions", opened(point, list(answers_by_model)))
    scene.when("predictions", *answers(point, answers_by_model))
    scene.when("inputs", received(point))
    return scene.when("inputs", resolved(point, **resolution))


def ended(scene: Given) -> dict[str, ScoreEntry]:
    return {entry.model_id: entry for entry in scene.only(RoundScored).data.entries()}


def units(scene: Given) -> dict[str, float]:
    return {name: row.units["value"] / UNIT for name, row in ended(scene).items() if row.units}


# --- scores ------------------------------------------------------------------------------------------------


def best_is_one(round_answers, truth, context):
    """The best gets 1, the worst 0, those between are linear."""
    score = round_answers.column("value") * np.sign(truth.return_)
    low, high = np.nanmin(score), np.nanmax(score)
    return {"value": (score - low) / (high - low)}


def place_by_place(round_answers, truth, context):
    given_values = [answer.output.value for answer in round_answers if answer.status == "answered"]
    best = max(given_values)
    return [None if answer.output is None else answer.output.value / best for answer in round_answers]


def test_a_model_is_scored_against_the_others():
    scene = play(stage(best_is_one), T0, {"b": 0.5, "c": -1.0, "a": 1.0, "d": "ABSENT"}).then(RoundScored)
    assert units(scene) == {"a": 1.0, "b": 0.75, "c": 0.0}
    assert ended(scene)["d"] == ScoreEntry("d", "ABSENT", "model")


def test_scores_may_be_returned_one_by_one_or_as_columns():
    scene = play(stage(place_by_place), T0, {"b": 0.5, "a": 1.0, "d": "FAILED"}).then(RoundScored)
    assert units(scene) == {"a": 1.0, "b": 0.5}
    assert ended(scene)["d"] == ScoreEntry("d", "FAILED", "model")


def test_the_function_receives_every_asked_model_in_the_order_of_ids():
    seen: dict[str, Any] = {}

    def looking(round_answers, truth, context):
        seen.update(
            models=round_answers.models,
            players=round_answers.players,
            statuses=round_answers.statuses,
            faults=round_answers.faults,
            outputs=round_answers.outputs,
            column=round_answers.column("value"),
            answered=round_answers.answered().tolist(),
            n=len(round_answers),
            context=context,
        )
        return {"value": round_answers.column("value")}

    play(stage(looking), T0, {"d": "ABSENT(node)", "b": 0.5, "a": "FAILED"}).then(RoundScored)
    assert seen["models"] == seen["players"] == ["a", "b", "d"]
    assert seen["statuses"] == ["failed", "answered", "absent"]
    assert seen["faults"] == ["model", "", "node"]
    assert [output and output.value for output in seen["outputs"]] == [None, 0.5, None]
    assert np.array_equal(seen["column"], [np.nan, 0.5, np.nan], equal_nan=True)
    assert (seen["answered"], seen["n"]) == ([False, True, False], 3)
    context = seen["context"]
    assert (context.scope_key, context.subject, context.horizon_seconds) == ("60s", SUBJECT, 60)
    assert (context.point, context.resolvable_at) == (T0, T0 + MINUTE)
    assert (context.states, context.shared) == ({}, None)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_models_answer_never_matters(seed):
    rng = random.Random(seed)
    answers_by_model = {f"m{i}": rng.uniform(-1, 1) for i in range(30)} | {"x": "ABSENT", "y": "FAILED"}

    def summing(round_answers, truth, context):
        score = round_answers.column("value")
        return {"value": score - np.nansum(score) / len(score)}

    shuffled = dict(rng.sample(list(answers_by_model.items()), len(answers_by_model)))
    in_order = play(stage(summing), T0, answers_by_model).only(RoundScored)
    other = play(stage(summing), T0, shuffled).only(RoundScored)
    assert msgspec.json.encode(in_order) == msgspec.json.encode(other)


def test_the_function_receives_the_schedules_params():
    def stepping(round_answers, truth, context):
        return {"value": round_answers.column("value") * context.params["scale"]}

    schedules = [ScheduledPrediction(scope_key="60s", params={"scale": 2})]
    scene = play(stage(stepping, scheduled_predictions=schedules), T0, {"a": 0.25}).then(RoundScored)
    assert units(scene) == {"a": 0.5}


class Rich(ScoreResult):
    edge: float = 0.0


class Vector(BaseModel):
    path: list[float]


def test_a_list_in_every_answer_is_a_column_of_two_dimensions():
    def ending(round_answers, truth, context):
        paths = round_answers.column("path")
        assert paths.shape == (3, 2)
        return {"value": paths[:, -1]}

    scene = stage(ending, output_type=Vector)
    play(scene, T0, {"a": {"path": [1.0, 2.0]}, "b": "ABSENT", "c": {"path": [3, 4]}}).then(RoundScored)
    assert units(scene) == {"a": 2.0, "c": 4.0}


def ok(round_answers):
    return round_answers.column("value")


def raising(round_answers, truth, context):
    raise ZeroDivisionError("no return")


REFUSED = {
    # function, why nobody is scored
    "raises": (raising, "score_round: ZeroDivisionError: no return"),
    "ends the process": (lambda a, t, c: sys.exit("bad"), "score_round: SystemExit: bad"),
    "gives nothing": (lambda a, t, c: None, "score_round: TypeError"),
    "too few": (lambda a, t, c: [1.0], "2 models were asked, and there are 1 scores"),
    "a short column": (lambda a, t, c: {"value": [1.0]}, "2 models were asked, and 'value' has 1 values"),
    "a column that no score has": (lambda a, t, c: {"value": ok(a), "edge": ok(a)}, "do not make a score_type"),
    "no value": (lambda a, t, c: {}, "do not make a score_type"),
    "text": (lambda a, t, c: {"value": ["x", "y"]}, "could not convert string to float"),
    "two dimensions": (lambda a, t, c: {"value": [[1.0], [2.0]]}, "one dimension, not 2"),
    "fails who was not asked": (lambda a, t, c: RoundScores([1, 1], failed={"z": "?"}), "score_round: KeyError: 'z'"),
    "state of who was not asked": (lambda a, t, c: RoundScores([1, 1], states={"z": 1}), "a state for 'z', who was not asked"),
    "shared state too large": (lambda a, t, c: RoundScores([1, 1], shared="x" * 5000), "the state of shared has 5002 bytes"),
    "shared state not finite": (lambda a, t, c: RoundScores([1, 1], shared=[float("nan")]), "is not finite"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_result_fails_the_round_by_the_nodes_fault_and_the_next_is_scored(function, reason):
    def first_wrong(round_answers, truth, context):
        if context.point == T0:
            return function(round_answers, truth, context)
        return {"value": round_answers.column("value")}

    scene = play(stage(first_wrong), T0, {"a": 0.5, "b": 0.1}).then(RoundScored)
    assert {(row.status, row.fault) for row in ended(scene).values()} == {("FAILED", "node")}
    assert all(reason in row.reason for row in ended(scene).values()), ended(scene)
    play(scene, T0 + MINUTE, {"a": 0.5, "b": 0.1}).then(RoundScored)
    assert units(scene) == {"a": 0.5, "b": 0.1}


def moody(round_answers, truth, context):
    """One score, in each of the ways of saying that there is none."""
    moods = {
        "failed": Failed("out of bounds"),
        "nothing": None,
        "nan": float("nan"),
        "huge": 1e300,
        "unsuccessful": {"value": 0.0, "success": False, "failed_reason": "no side"},
        "good": {"value": np.float32(0.5)},
        "number": 1,
    }
    return [moods[answer.model_id] for answer in round_answers]


def test_one_models_failure_affects_no_other():
    names = ["failed", "nothing", "nan", "huge", "unsuccessful", "good", "number"]
    scene = play(stage(moody), T0, dict.fromkeys(names, 0.5)).then(RoundScored)
    assert units(scene) == {"good": 0.5, "number": 1.0}
    reasons = {name: (row.fault, row.reason) for name, row in ended(scene).items() if not row.units}
    assert reasons == {
        "failed": ("model", "out of bounds"),
        "nothing": ("model", "score_round gave no number for 'value'"),
        "nan": ("model", "score is not finite: nan"),
        "huge": ("model", "score is beyond 2**53 units: 1e+300"),
        "unsuccessful": ("model", "no side"),
    }


def test_a_failed_model_is_named_by_its_id_beside_columns():
    def two_legs(round_answers, truth, context):
        value = round_answers.column("value")
        return RoundScores({"value": value, "edge": value}, failed={"b": "constant"})

    scene = play(stage(two_legs, score_type=Rich), T0, {"a": 0.5, "b": 0.1, "c": 1e300}).then(RoundScored)
    assert ended(scene)["a"].units == {"value": UNIT // 2, "edge": UNIT // 2}
    assert ended(scene)["b"] == ScoreEntry("b", "FAILED", "model", reason="constant")
    assert (ended(scene)["c"].fault, ended(scene)["c"].units) == ("model", {})


def test_an_absurd_answer_alone_in_its_round_does_not_avoid_the_charge():
    def squaring(round_answers, truth, context):
        with np.errstate(over="ignore"):
            return {"value": round_answers.column("value") ** 2}

    scene = play(stage(squaring), T0, {"a": 1e300}).then(RoundScored)
    assert (ended(scene)["a"].status, ended(scene)["a"].fault) == ("FAILED", "model")
    raises = stage(lambda a, t, c: [answer.output and answer.output.value**2 for answer in a])
    play(raises, T0, {"a": 1e300}).then(RoundScored)
    assert ended(raises)["a"].fault == "model"
    nobody = play(stage(lambda a, t, c: {"value": [float("nan")] * len(a)}), T0, {"a": 0.5}).then(RoundScored)
    assert ended(nobody)["a"].fault == "node"


def test_without_a_truth_nobody_is_scored_and_the_function_is_not_called():
    scene = play(stage(raising), T0, {"a": 0.5, "b": "ABSENT"}, change=None).then(RoundScored)
    assert ended(scene)["a"] == ScoreEntry(
        "a", "FAILED", "node", reason="no ground truth: gap: no record within the window"
    )
    assert ended(scene)["b"] == ScoreEntry("b", "ABSENT", "model")


def test_a_round_without_models_is_closed():
    play(stage(lambda a, t, c: {"value": []}), T0, {}).then(RoundScored)


# --- absence -----------------------------------------------------------------------------------------------


def peer(round_answers, truth, context):
    value = round_answers.column("value")
    return {"value": np.where(round_answers.answered(), value, -1.0)}


CHARGES = {
    # policy: the charges of (absent, failed, absent by the node's fault)
    "ignore": (None, None, None),
    "zero": (0, 0, None),
    "worst_percentile": (UNIT // 10, UNIT // 10, None),
    "scored": (-UNIT, -UNIT, -UNIT),
}


@pytest.mark.parametrize("policy", CHARGES)
def test_charges_of_absence(policy):
    answers_by_model = {"a": 0.5, "b": 0.1, "x": "ABSENT", "y": "FAILED", "z": "ABSENT(node)"}
    scene = play(stage(peer, absence_policy=policy), T0, answers_by_model).then(RoundScored)
    charges = tuple(ended(scene)[name].charge_units for name in "xyz")
    assert charges == CHARGES[policy]
    assert units(scene) == {"a": 0.5, "b": 0.1}


@pytest.mark.parametrize(("policy", "charge"), [("scored", -UNIT // 2), ("ignore", None), ("zero", 0)])
def test_charges_of_failure(policy, charge):
    """The number beside a failure is its charge where the contract says what absence costs. NaN is no charge."""

    def refuses(round_answers, truth, context):
        value = [0.25, -0.5, math.nan, math.nan][: len(round_answers)]
        return RoundScores({"value": value}, failed={"b": "no trade yet", "c": "no side", "d": "away"})

    answers_by_model = {"a": 0.5, "b": 0.1, "c": 0.1, "d": "ABSENT"}
    scene = play(stage(refuses, absence_policy=policy), T0, answers_by_model).then(RoundScored)
    assert ended(scene)["b"] == ScoreEntry("b", "FAILED", "model", charge, reason="no trade yet")
    assert [ended(scene)[model_id].charge_units for model_id in "cd"] == (
        [None] * 2 if policy == "scored" else [charge] * 2
    )


def test_scored_absence_needs_a_function_that_scores_it():
    with pytest.raises(ValueError, match="absence_policy 'scored'"):
        CrunchContract(absence_policy="scored")


def test_a_contract_has_one_way_of_scoring():
    with pytest.raises(ValueError, match="both set"):
        CrunchContract(score_round=peer, score_prediction=lambda prediction, truth: {"value": 0.0})


# --- carried state -----------------------------------------------------------------------------------------


def wealth(round_answers, truth, context):
    """Stakes a tenth; who is right gets it, who is wrong loses it. What is said of it is the wealth."""
    side = np.sign(truth.return_)
    states = {
        answer.model_id: {
            "wealth": context.states.get(answer.model_id, {"wealth": 100.0})["wealth"]
            * (1 + 0.1 * side * answer.output.value)
        }
        for answer in round_answers
        if answer.output is not None
    }
    rounds = (context.shared or 0) + 1
    scores = [states[model_id]["wealth"] if model_id in states else None for model_id in round_answers.models]
    return RoundScores(scores, states=states, shared=rounds)


def carried(event: StateCarried) -> dict[str, Any]:
    return {name: msgspec.json.decode(state) for name, state in event.data.states.items()}


def test_state_goes_from_round_to_round_and_only_changes_are_recorded():
    scene = play(stage(wealth), T0, {"a": 1.0, "b": 0.0, "c": "ABSENT"}).then(RoundScored, StateCarried)
    first = scene.only(StateCarried)
    assert carried(first) == {"a": {"wealth": pytest.approx(110)}, "b": {"wealth": 100.0}}
    assert [msgspec.json.decode(state) for state in first.data.shared] == [1]
    assert (first.data.holder, first.data.scope_key, first.data.subject) == (f"{SUBJECT}/60s", "60s", SUBJECT)
    play(scene, T0 + MINUTE, {"a": 1.0, "b": 0.0}).then(RoundScored, StateCarried)
    assert carried(scene.only(StateCarried)) == {"a": {"wealth": pytest.approx(121)}}
    assert units(scene) == {"a": pytest.approx(121), "b": 100.0}


def test_an_unchanged_state_makes_no_event():
    scene = play(
        stage(lambda a, t, c: RoundScores([1] * len(a), states={"a": {"x": [1]}}, shared=0)), T0, {"a": 0}
    )
    scene.then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"a": 0}).then(RoundScored)


def test_returning_none_forgets_a_model():
    def last_left(round_answers, truth, context):
        gone = {name: None for name in context.states if name not in round_answers.models}
        return RoundScores(
            [len(context.states)] * len(round_answers), states=gone | dict.fromkeys(round_answers.models, 1)
        )

    scene = play(stage(last_left), T0, {"a": 0, "b": 0}).then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"b": 0}).then(RoundScored, StateCarried)
    assert carried(scene.only(StateCarried)) == {"a": None}
    play(scene, T0 + 2 * MINUTE, {"b": 0}).then(RoundScored)
    assert units(scene) == {"b": 1.0}


def test_changes_to_the_state_object_itself_do_not_count():
    def spoiling(round_answers, truth, context):
        for state in context.states.values():
            state["x"] += 1
        return RoundScores([0] * len(round_answers), states={"a": {"x": 1}} if not context.states else {})

    scene = play(stage(spoiling), T0, {"a": 0}).then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"a": 0}).then(RoundScored)


def test_a_failed_round_leaves_the_state_unchanged():
    def once(round_answers, truth, context):
        if context.point == T0 + MINUTE:
            raise ValueError("a case that the author forgot")
        return wealth(round_answers, truth, context)

    scene = play(stage(once), T0, {"a": 1.0}).then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"a": 1.0}).then(RoundScored)
    play(scene, T0 + 2 * MINUTE, {"a": 1.0}, change=None).then(RoundScored)
    play(scene, T0 + 3 * MINUTE, {"a": 1.0}).then(RoundScored, StateCarried)
    assert carried(scene.only(StateCarried)) == {"a": {"wealth": pytest.approx(121)}}


BAD_STATES = {
    "too large": ("x" * 100, "the state of a has 102 bytes, state_max_bytes is 100"),
    "not finite": ({"w": float("inf")}, "the state of a: .w is not finite"),
    "no JSON": (object(), "Encoding objects of type object is unsupported"),
    "half a letter": ("\ud800", "surrogates not allowed"),
}


@pytest.mark.parametrize(("state", "why"), BAD_STATES.values(), ids=BAD_STATES)
def test_a_state_that_cannot_be_recorded_fails_its_model_alone_which_keeps_the_old_state(state, why):
    def growing(round_answers, truth, context):
        states = {"a": 1 if context.point == T0 else state, "b": context.point}
        return RoundScores([1.0, 2.0], states=states)

    scene = play(stage(growing, state_max_bytes=100), T0, {"a": 0, "b": 0}).then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"a": 0, "b": 0}).then(RoundScored, StateCarried)
    assert units(scene) == {"b": 2.0}
    assert (ended(scene)["a"].fault, why in ended(scene)["a"].reason) == ("model", True), ended(scene)["a"]
    assert carried(scene.only(StateCarried)) == {"b": T0 + MINUTE}


@pytest.mark.parametrize(("state_scope", "counted"), [("scope", [1, 1, 1, 1]), ("all", [1, 2, 3, 4])])
def test_each_scope_has_its_own_state_or_all_share_one(state_scope, counted):
    def counting(round_answers, truth, context):
        rounds = (context.shared or 0) + 1
        return RoundScores([rounds] * len(round_answers), shared=rounds)

    scene = stage(counting, state_scope=state_scope)
    scopes = ("60s", "60s-fine")
    for subject in (SUBJECT, "ETHUSDT"):
        scene.when("predictions", opened(T0, ["a"], subject, scopes))
        scene.when("predictions", *answers(T0, {"a": 0.5}, subject, scopes))
    values: list[float] = []
    for subject in (SUBJECT, "ETHUSDT"):
        scene.when("inputs", received(T0, subject, {"60s": 60, "60s-fine": 60}))
        scene.when("inputs", resolved(T0, subject))
        values += [event.data.units["value"][0] / UNIT for event in scene.all(RoundScored)]
    assert values == counted


def test_states_of_many_models_are_split_into_records(monkeypatch):
    monkeypatch.setattr(whole_rounds, "STATES_BYTES", 300)

    def large(round_answers, truth, context):
        return RoundScores(
            [0] * len(round_answers), states=dict.fromkeys(round_answers.models, "x" * 90), shared=1
        )

    names = [f"m{i}" for i in range(7)]
    scene = play(stage(large), T0, dict.fromkeys(names, 0.5)).then(RoundScored, *[StateCarried] * 3)
    parts = scene.all(StateCarried)
    assert [name for part in parts for name in part.data.states] == names
    assert [len(part.data.shared) for part in parts] == [1, 0, 0]
    assert len({part.id for part in parts}) == 3


# --- units by column ---------------------------------------------------------------------------------------


def test_a_column_is_rounded_like_each_of_its_numbers():
    rng = random.Random(1)
    values = [
        rng.choice([rng.gauss(0, 1), rng.uniform(-1e6, 1e6), round(rng.gauss(0, 5), 9)]) for _ in range(3000)
    ]
    values += [
        0.5,
        1.5,
        2.5,
        -0.5,
        1e-10,
        0.0000000005,
        0.0000000015,
        2.0**41,
        1e300,
        float("inf"),
        -0.0,
        9e6,
        9.1e6,
    ]
    for decimals in (0, 2, 9, 12):
        column, reasons = column_to_units(values, decimals)
        alone = [recorded(value, decimals) for value in values]
        assert [reasons.get(place, units) for place, units in enumerate(column)] == alone


def recorded(value: float, decimals: int) -> int | str:
    """The units, or why there are none."""
    try:
        return to_units(value, decimals)
    except NotRecordableError as error:
        return str(error)


def test_a_column_without_a_number_has_none_recorded():
    assert column_to_units([1.0, None, float("nan")], 2) == ([100, None, None], {})
