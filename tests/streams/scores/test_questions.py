"""Posted questions in the score stage: which of several answers counts, stakes, void questions, and corrected truths."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.given import Given, given
from tests.streams.asked import CLOSES, SCOPE, Q, all_answered, asked, asks, came, closed, the_round
from tests.streams.build import DAY, HOUR, MINUTE, T0, UNIT, configured, inputs_until, shelf

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.rounds import RoundScores
from coordinator.streams.events import CrunchConfigured, RoundRescored, RoundScored, ScoredUntil, ScoreEntry
from coordinator.streams.log.transitions import Transition, transitions
from coordinator.streams.scores.stage import ScoreStage

LATER = CLOSES + 3 * DAY


def stage(contract: CrunchContract | None = None, **changes: Any) -> Given:
    contract = contract or asks()
    assert contract.questions is not None
    terms = {"questions": contract.questions.terms(), "checkpoint_interval_ms": 7 * DAY} | changes
    return given(ScoreStage(shelf(contract))).when("inputs", configured(**terms)).then(CrunchConfigured)


def rounds(scene: Given, *askings: tuple[str, dict[str, Any], int]) -> Given:
    """Each of `said` is (suffix, each model's answer, time). Those without an `s` in the suffix are askings."""
    for number, (suffix, answers, at) in enumerate(askings, 1):
        if not suffix.startswith("~s"):
            scene.when("inputs", asked(number, at))
        scene.when("predictions", *the_round(suffix, answers, at)).then()
    return scene


def ended(scene: Given) -> dict[str, ScoreEntry]:
    return {entry.model_id: entry for entry in scene.only(RoundScored).data.entries()}


def values(scene: Given) -> dict[str, float]:
    return {
        name: entry.units["value"] / UNIT for name, entry in ended(scene).items() if entry.status == "SCORED"
    }


TWICE = (
    ("", {"a": 0.2, "b": 0.5, "c": "ABSENT"}, T0),
    ("~2", {"a": 0.9, "b": "FAILED", "c": "ABSENT(node)", "d": 0.4}, T0 + 20 * MINUTE),
    ("~sab12cd34ef56", {"e": 0.7}, T0 + 30 * MINUTE),
)


def test_the_last_valid_answer_before_the_close_counts():
    scene = rounds(stage(), *TWICE)
    scene.when("inputs", closed(), came(1.0, LATER)).then()
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56")).then(RoundScored)
    assert values(scene) == pytest.approx({"a": 0.99, "b": 0.75, "d": 0.64, "e": 0.91})
    data = scene.only(RoundScored).data
    assert (data.input_id, data.models) == (Q, ["a", "b", "c", "d", "e"])
    assert data.rounds == ["~2", "", "~2", "~2", "~sab12cd34ef56"]
    assert data.replaced == {"": [0]}
    assert data.merged == {}
    assert (data.resolvable_at, data.point) == (LATER, T0)  # paid in the period in which it resolves
    assert (ended(scene)["c"].status, ended(scene)["c"].fault) == ("ABSENT", "node")  # its last missed asking


def test_a_late_answer_of_an_earlier_asking_counts_by_its_time():
    """An asking may be answered after a submission that was made while it was running."""
    scene = stage().when("inputs", asked())
    scene.when("predictions", *the_round("", {"a": 0.9}, T0 + 2 * MINUTE))
    scene.when("predictions", *the_round("~sab12cd34ef56", {"a": 0.1}, T0 + MINUTE))
    scene.when("predictions", all_answered("", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER)).then(RoundScored)
    assert values(scene) == pytest.approx({"a": 0.99})
    assert scene.only(RoundScored).data.rounds == []


def test_each_answer_gets_one_outcome():
    scene = rounds(stage(), *TWICE)
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER))
    rosters: dict[str, Any] = {}
    moves: list[Transition] = []
    for suffix, answers_by_model, at in TWICE:
        for event in the_round(suffix, answers_by_model, at):
            moves += transitions(event, rosters)
    moves += transitions(scene.only(RoundScored), rosters)
    last = {move.prediction_id: move.after for move in moves}
    assert last == {
        f"{Q}/{SCOPE}/a": "REPLACED",
        f"{Q}/{SCOPE}/b": "SCORED",
        f"{Q}/{SCOPE}/c": "ABSENT",
        f"{Q}~2/{SCOPE}/a": "SCORED",
        f"{Q}~2/{SCOPE}/b": "FAILED",
        f"{Q}~2/{SCOPE}/c": "ABSENT",
        f"{Q}~2/{SCOPE}/d": "SCORED",
        f"{Q}~sab12cd34ef56/{SCOPE}/e": "SCORED",
    }
    assert len({move.id for move in moves}) == len(moves)


def test_the_mean_weighs_each_answer_by_the_time_it_was_in_force():
    scene = rounds(stage(asks("mean")), *TWICE)
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER)).then(RoundScored)
    mean = (0.2 * 20 + 0.9 * 40) / 60
    assert values(scene) == pytest.approx({"a": 1 - (mean - 1) ** 2, "b": 0.75, "d": 0.64, "e": 0.91})
    data = scene.only(RoundScored).data
    assert (data.merged, data.replaced, data.rounds[0]) == ({"": [0]}, {}, "~2")
    after = {move.prediction_id: move.after for move in transitions(scene.only(RoundScored), {})}
    assert after[f"{Q}/{SCOPE}/a"] == after[f"{Q}~2/{SCOPE}/a"] == "SCORED"


class Spread(BaseModel):
    center: float
    levels: list[float]
    note: str


@drawn(st.lists(st.tuples(st.integers(0, 50), st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6))
def test_the_mean_is_taken_field_by_field(drawn_answers):
    drawn_by_minute = {at: (center, level) for at, center, level in sorted(drawn_answers)}
    seen: list[Spread] = []

    def keep(prediction: Spread, truth: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"value": 0.0}

    scene = stage(asks("mean", output_type=Spread, score_prediction=keep))
    for number, (minute, (center, level)) in enumerate(drawn_by_minute.items(), 1):
        answer = {"center": center, "levels": [level, 2 * level], "note": f"n{number}"}
        suffix = "" if number == 1 else f"~{number}"
        scene.when("inputs", asked(number, T0 + minute * MINUTE))
        scene.when("predictions", *the_round(suffix, {"a": answer}, T0 + minute * MINUTE))
    scene.when("predictions", all_answered("", *(f"~{n}" for n in range(2, len(drawn_by_minute) + 1))))
    scene.when("inputs", closed(), came(1.0, LATER)).then(RoundScored)
    times = [*drawn_by_minute, 60]
    weights = [after - at for at, after in pairwise(times)]
    center = sum(Fraction(c) * w for (c, _), w in zip(drawn_by_minute.values(), weights, strict=True)) / sum(
        weights
    )
    level = sum(Fraction(x) * w for (_, x), w in zip(drawn_by_minute.values(), weights, strict=True)) / sum(
        weights
    )
    answer = seen[0]
    assert answer.center == pytest.approx(float(center), abs=1e-12)
    assert answer.levels == pytest.approx([float(level), 2 * float(level)], abs=1e-12)
    assert answer.note == f"n{len(drawn_by_minute)}"


class Counted(BaseModel):
    goals: int
    level: float | int = 0.0


@pytest.mark.parametrize(
    ("answers", "goals", "level"),
    [
        ([{"goals": 1}, {"goals": 4}], 2, 0.0),
        ([{"goals": 1}, {"goals": 2}], 2, 0.0),
        ([{"goals": 10**400}, {"goals": 10**400 + 3}], 10**400 + 2, 0.0),
        ([{"goals": 1, "level": 10**400}, {"goals": 1, "level": 0.5}], 1, 0.5),
        ([{"goals": 1, "level": 0}, {"goals": 1, "level": 1}], 1, 0.5),
    ],
    ids=["2.5", "1.5", "huge", "huge beside a float", "any number"],
)
def test_the_mean_of_whole_numbers_is_a_whole_number_and_no_size_stops_the_stage(answers, goals, level):
    seen: list[Counted] = []

    def keep(prediction: Counted, truth: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"value": 0.0}

    half = (("", {"a": answers[0]}, T0), ("~2", {"a": answers[1]}, T0 + 30 * MINUTE))
    scene = rounds(stage(asks("mean", output_type=Counted, score_prediction=keep)), *half)
    scene.when("predictions", all_answered("", "~2"))
    scene.when("inputs", closed(), came(1.0, LATER)).then(RoundScored)
    assert (seen[-1].goals, seen[-1].level) == (goals, level)


def test_the_whole_history_is_passed_to_the_scoring_unchanged():
    seen: list[Any] = []

    def keep(prediction: Any, truth: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"value": float(len(prediction["answers"]))}

    scene = rounds(stage(asks("history", score_prediction=keep)), *TWICE)
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER)).then(RoundScored)
    assert values(scene) == {"a": 2.0, "b": 1.0, "d": 1.0, "e": 1.0}
    assert seen[0] == {
        "answers": [
            {"at": T0, "output": {"value": 0.2}},
            {"at": T0 + 20 * MINUTE, "output": {"value": 0.9}},
        ],
        "opens_at": T0,
        "closes_at": CLOSES,
    }


def test_the_scoring_of_a_whole_round_receives_the_question_and_the_stakes():
    seen: list[Any] = []

    def score_round(answers: Any, truth: Any, context: Any) -> RoundScores:
        seen.append(context)
        worth = [1 - (answer.output.value - truth.outcome) ** 2 for answer in answers]
        return RoundScores(
            [context.stakes.get(answer.model_id, 0.0) * x for answer, x in zip(answers, worth, strict=True)]
        )

    scene = stage(asks(score_round=score_round))
    scene.when("inputs", asked(payload={"title": "Will it rain?"}))
    scene.when("predictions", *the_round("", {"a": 1.0, "b": 0.0}), all_answered())
    scene.when("inputs", closed(a="2.5", b="4"), came(1.0, LATER)).then(RoundScored)
    assert values(scene) == {"a": 2.5, "b": 0.0}
    context = seen[0]
    assert context.question.payload == {"title": "Will it rain?"}
    assert (context.question.round_id, context.question.question_id) == ("r1", "q1")
    assert (context.question.tags, context.question.closes_at) == (["Weather"], CLOSES)
    assert context.resolvable_at == LATER


@pytest.mark.parametrize("policy", ["ignore", "zero", "worst", "scored"])
def test_a_void_question_scores_charges_and_counts_nobody(policy):
    scene = stage(absence_policy=policy).when("inputs", asked())
    scene.when("predictions", *the_round("", {"a": 0.5, "b": "ABSENT"}), all_answered())
    scene.when("inputs", closed(), came(None, LATER, void=True)).then(RoundScored)
    assert {(e.status, e.fault, e.charge_units) for e in ended(scene).values()} == {
        ("FAILED", "nobody", None),
        ("ABSENT", "nobody", None),
    }
    assert ended(scene)["a"].reason == "void: annulled"


def test_a_truth_waits_for_all_answers_and_later_ones_wait_behind_it():
    scene = stage().when("inputs", asked())
    scene.when("predictions", *the_round("", {"a": 0.5}))
    scene.when("inputs", closed(), came(1.0, LATER), inputs_until(LATER + HOUR)).then()
    scene.when("predictions", *the_round("~sab12cd34ef56", {"a": 1.0}, T0 + MINUTE)).then()
    scene.when("predictions", all_answered("", "~sab12cd34ef56")).then(RoundScored, ScoredUntil)


def test_a_corrected_truth_scores_again_and_both_scores_are_kept():
    scene = rounds(stage(), *TWICE)
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER), inputs_until(LATER + HOUR)).then(
        RoundScored, ScoredUntil
    )
    first = scene.all(RoundScored)[0].data
    scene.when("inputs", came(0.0, LATER + 2 * HOUR, revision=1)).then(RoundRescored)
    again = scene.only(RoundRescored).data
    assert (again.before.units, again.before.unscored) == (first.units, first.unscored)
    assert (again.first_resolvable_at, again.resolvable_at, again.revision) == (LATER, LATER + 2 * HOUR, 1)
    assert (again.rounds, again.replaced) == (first.rounds, first.replaced)
    units = {e.model_id: e.units["value"] / UNIT for e in again.entries() if e.status == "SCORED"}
    assert units == pytest.approx({"a": 0.19, "b": 0.75, "d": 0.84, "e": 0.51})
    # Corrected again, now against the first correction; then the same truth once more, which changes nothing.
    scene.when("inputs", came(0.5, LATER + 3 * HOUR, revision=2)).then(RoundRescored)
    assert scene.only(RoundRescored).data.before.units == again.units
    scene.when("inputs", came(0.5, LATER + 4 * HOUR, revision=2)).then()


def test_a_correction_after_the_checkpoint_period_scores_nothing_and_blocks_nothing():
    scene = rounds(stage(), *TWICE)
    scene.when("predictions", all_answered("", "~2", "~sab12cd34ef56"))
    scene.when("inputs", closed(), came(1.0, LATER), inputs_until(LATER + 8 * DAY))
    scene.when("inputs", came(0.0, LATER + 8 * DAY, revision=1)).then()
    other = Q.replace("q1", "q2")
    scene.when("inputs", asked(at=LATER + 8 * DAY, question=other))
    scene.when(
        "predictions",
        *the_round("", {"a": 0.5}, LATER + 8 * DAY, question=other),
        all_answered(question=other),
    )
    scene.when(
        "inputs", closed(LATER + 8 * DAY + HOUR, question=other), came(1.0, LATER + 9 * DAY, question=other)
    )
    scene.then(RoundScored)
    state = scene.stage.state
    assert [*state.rounds] == [other]  # no state of the old question is kept
    assert Q not in state.own.questions
    assert [*state.inputs] == [other]
    assert (state.settled, state.resolved) == ({}, {other: state.resolved[other]})


def test_an_owner_that_begins_in_the_middle_takes_the_same_decisions():
    """Every step is decided by a stage that lived through all of them, and by one created just before it."""
    events: list[tuple[str, list[Any]]] = [("inputs", [configured(questions=asks().questions.terms())])]
    for number in range(9):
        question = Q.replace("q1", f"q{number}")
        at = T0 + number * HOUR
        events += [
            ("inputs", [asked(at=at, question=question)]),
            ("predictions", the_round("", {"a": 0.3, "b": "ABSENT"}, at, question=question)),
            ("inputs", [asked(2, at + MINUTE, question=question, whom="missing")]),
            ("predictions", the_round("~2", {"b": 0.6}, at + MINUTE, question=question)),
            ("predictions", the_round("~sab12cd34ef56", {"a": 0.8}, at + 2 * MINUTE, question=question)),
            ("inputs", [closed(at + 30 * MINUTE, question=question, askings=2)]),
            ("predictions", [all_answered("", "~2", "~sab12cd34ef56", question=question)]),
            ("inputs", [came(1.0, at + 40 * MINUTE, question=question)]),
            ("inputs", [inputs_until(at + 50 * MINUTE)]),
            ("inputs", [came(0.0, at + 55 * MINUTE, question=question, revision=1)]),
        ]
    whole = given(ScoreStage(shelf(asks())))
    made_by = [[event.id for event in whole.when(topic, *told).made] for topic, told in events]
    undisturbed = given(ScoreStage(shelf(asks())))
    own: list[list[Any]] = []
    for cut, (of, news) in enumerate(events):
        own.append(undisturbed.when(of, *news).made)
        resumed = given(ScoreStage(shelf(asks())))
        for decided in own:
            resumed.own(*decided)
        resumed.stage.state.upto = dict(undisturbed.stage.state.upto)
        resumed.stage.state.need = dict(undisturbed.stage.state.need)
        offsets: dict[str, int] = {}
        then: list[str] = []
        for topic, told in events:
            offset = offsets[topic] = offsets.get(topic, -1) + 1
            if offset >= resumed.stage.state.need[topic].offset:
                then += [event.id for event in resumed.at(topic, offset).when(topic, *told).made]
        assert then == [event for step in made_by[cut + 1 :] for event in step], cut
    assert Q.replace("q1", "q0") not in resumed.stage.state.rounds  # its checkpoint period is over
