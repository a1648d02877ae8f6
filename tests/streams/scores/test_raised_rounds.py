"""One answer that `score_round` cannot score takes the score from no other model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, RootModel
from tests.streams.build import MINUTE, T0, UNIT
from tests.streams.scores.test_whole_rounds import carried, ended, play, stage, units

from coordinator.streams.contract import RoundScores
from coordinator.streams.events import RoundScored, StateCarried
from coordinator.streams.scores import raised_rounds
from coordinator.streams.scores.raised_rounds import scorable_places


class Count(BaseModel):
    value: int


class Path(BaseModel):
    path: list[float]


class Weights(BaseModel):
    of: dict[str, float]


class Table(RootModel[list[list[float]]]):
    pass


def by_column(name: str) -> Any:
    def first_number(round_answers, truth, context):
        numbers = round_answers.column(name)
        return {"value": numbers.reshape(len(round_answers), -1)[:, 0]}

    return first_number


def of_x(round_answers, truth, context):
    return [answer.output and answer.output.of["x"] for answer in round_answers]


ABSURD = {
    # output type, function, a good answer, one that it cannot score
    "an int that is no float": (Count, by_column("value"), {"value": 2}, {"value": 10**400}),
    "a shorter list": (Path, by_column("path"), {"path": [2.0, 3.0]}, {"path": [1.0]}),
    "an empty list": (Path, by_column("path"), {"path": [2.0, 3.0]}, {"path": []}),
    "a ragged table": (Table, by_column(""), [[2.0, 3.0], [4.0, 5.0]], [[2.0, 3.0], [4.0]]),
    "a name that is missing": (Weights, of_x, {"of": {"x": 2.0}}, {"of": {"y": 2.0}}),
}


@pytest.mark.parametrize("absurd_id", ["0", "m", "z"])
@pytest.mark.parametrize(("output_type", "function", "good", "absurd"), ABSURD.values(), ids=ABSURD)
def test_an_absurd_answer_fails_alone(output_type, function, good, absurd, absurd_id):
    answers = dict.fromkeys("abpq", good) | {absurd_id: absurd, "n": "ABSENT"}
    scene = play(stage(function, output_type=output_type), T0, answers).then(RoundScored)
    assert units(scene) == dict.fromkeys("abpq", 2.0)
    assert (ended(scene)[absurd_id].status, ended(scene)[absurd_id].fault) == ("FAILED", "model")
    assert ended(scene)[absurd_id].reason.startswith("score_round: ")
    assert (ended(scene)["n"].status, ended(scene)["n"].reason) == ("ABSENT", "")


def test_many_absurd_answers_in_every_place_leave_the_others_their_scores():
    answers: dict[str, Any] = {f"m{i:02d}": {"value": 2 if i % 5 else 10**400} for i in range(40)}
    scene = play(stage(by_column("value"), output_type=Count), T0, answers).then(RoundScored)
    assert set(units(scene)) == {f"m{i:02d}" for i in range(40) if i % 5}
    assert {row.fault for row in ended(scene).values() if not row.units} == {"model"}


def test_who_is_left_out_is_charged_as_one_who_did_not_answer():
    def touchy(round_answers, truth, context):
        return [-3.0 if answer.output is None else 1 / answer.output.value for answer in round_answers]

    for policy, charge in (("scored", -3 * UNIT), ("zero", 0), ("worst", UNIT), ("ignore", None)):
        scene = play(stage(touchy, absence_policy=policy), T0, {"a": 0.5, "b": 0.0, "c": 1.0}).then(
            RoundScored
        )
        assert units(scene) == {"a": 2.0, "c": 1.0}
        assert ended(scene)["b"].charge_units == charge, policy


def test_the_state_goes_on_without_the_answer_and_no_trial_leaves_a_trace():
    def counting(round_answers, truth, context):
        before = context.states.get("a", {"rounds": 0})
        before["rounds"] += 1
        [1 / answer.output.value for answer in round_answers if answer.output]
        return RoundScores([1.0] * len(round_answers), states={"a": before})

    scene = stage(counting)
    play(scene, T0, {"a": 0.5, "b": 0.0}).then(RoundScored, StateCarried)
    play(scene, T0 + MINUTE, {"a": 0.5, "b": 0.0}).then(RoundScored, StateCarried)
    assert carried(scene.only(StateCarried)) == {"a": {"rounds": 2}}


def test_a_function_that_needs_two_answers_blames_nobody_who_is_alone():
    def spread(round_answers, truth, context):
        values = [answer.output.value for answer in round_answers if answer.output]
        return [
            1 / (len(values) - 1) / (answer.output.value if answer.output else 1) for answer in round_answers
        ]

    alone = play(stage(spread), T0, {"a": 0.5, "b": "ABSENT"}).then(RoundScored)
    assert ended(alone)["a"].fault == "node"
    # The first ones are tried before there are others beside them, and are scored all the same.
    beside = play(stage(spread), T0, {"a": 0.0, "b": 0.5, "c": 0.5, "d": 0.5}).then(RoundScored)
    assert ({row.model_id for row in ended(beside).values() if row.units}, ended(beside)["a"].fault) == (
        {*"bcd"},
        "model",
    )


def test_where_it_is_not_clear_which_answer_is_wrong_the_node_is_at_fault():
    forms = {"a": {"path": [1.0]}, "b": {"path": [1.0, 2.0]}}
    scene = stage(by_column("path"), output_type=Path)
    assert {row.fault for row in ended(play(scene, T0, forms).then(RoundScored)).values()} == {"node"}
    # An answer that it scores for nobody is to blame, also where there are as many of them as of others.
    one_each: dict[str, Any] = {"a": {"value": 10**400}, "b": {"value": 2}}
    scene = play(stage(by_column("value"), output_type=Count), T0, one_each).then(RoundScored)
    assert ({name: row.fault for name, row in ended(scene).items() if not row.units}) == {"a": "model"}


def of_sum(round_answers, truth, context):
    total = sum(answer.output.value for answer in round_answers if answer.output)
    return [answer.output and answer.output.value / total for answer in round_answers]


def test_an_answer_that_is_scored_beside_some_of_the_others_is_not_to_blame():
    """Together they have no sum to divide by. Each three of them have, so no one of them is absurd."""
    even = {name: {"value": value} for name, value in {"a": 1, "b": 1, "c": -1, "d": -1}.items()}
    scene = stage(of_sum, output_type=Count)
    assert {row.fault for row in ended(play(scene, T0, even).then(RoundScored)).values()} == {"node"}


def test_a_slow_function_is_not_called_without_end():
    calls: list[Any] = []

    def scores(places: Any) -> bool:
        calls.append(places)
        return {place % 3 for place in places} != {0, 1, 2}

    scorable_places([b"1"] * 300, range(300), scores, lambda place: True)
    assert len(calls) <= raised_rounds.CALLS_MAX


def test_the_search_ends(monkeypatch):
    monkeypatch.setattr(raised_rounds, "ANSWERS_TRIED_MAX", 100)
    calls: list[Any] = []

    def scores(places: Any) -> bool:
        calls.append(places)
        return all(place % 2 for place in places)

    assert scorable_places([b"1"] * 10, range(10), scores, lambda: True) is None
    assert len(calls) == 10
