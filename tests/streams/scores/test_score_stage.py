"""The score stage: rounds wait for their truth, a failure affects its own prediction alone, charges by policy."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from tests.given import Given, given
from tests.streams.build import (
    DEFAULT,
    HASH,
    HOUR,
    MINUTE,
    T0,
    UNIT,
    answers,
    configured,
    inputs_until,
    opened,
    received,
    resolved,
    shelf,
)

from coordinator.streams.contract import AbsenceConstant, AbsencePercentile, CrunchContract, ScoreResult
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import (
    CrunchConfigured,
    RoundScored,
    ScoredUntil,
    ScoreEntry,
)
from coordinator.streams.log import stage as stage_shape
from coordinator.streams.log.envelope import Need
from coordinator.streams.scores.single_answers import charged
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings


def stage(contract: CrunchContract = DEFAULT, **changes: Any) -> Given:
    return given(ScoreStage(shelf(contract))).when("inputs", configured(**changes)).then(CrunchConfigured)


def answered(
    scene: Given,
    point: int,
    answers_by_model: dict[str, Any],
    scope_keys: tuple[str, ...] = ("60s",),
    **where,
) -> Given:
    scene.when("predictions", opened(point, list(answers_by_model), scope_keys=scope_keys, **where))
    return scene.when("predictions", *answers(point, answers_by_model, scope_keys=scope_keys, **where))


def scored(contract: CrunchContract, answer: Any = 0.5, change: float | None = 0.01) -> Given:
    """One model's answer against one truth."""
    scene = answered(stage(contract), T0, {"m": answer})
    scene.when("inputs", received(T0))
    return scene.when("inputs", resolved(T0, change=change))


def ended(scene: Given) -> dict[str, ScoreEntry]:
    """Each model's result in the event of the last round."""
    return {entry.model_id: entry for entry in scene.only(RoundScored).data.entries()}


ROUND = {"up": 1.0, "down": -1.0, "half": 0.5, "none": 0.0, "huge": 50.0, "away": "ABSENT", "broken": "FAILED", "lost": "ABSENT(node)"}  # fmt: skip


def test_every_prediction_is_scored_against_the_truth_and_the_round_is_closed():
    scene = answered(stage(), T0, ROUND)
    scene.when("inputs", received(T0)).then()
    scene.when("inputs", resolved(T0, change=0.01))
    units = {name: entry.units["value"] for name, entry in ended(scene).items() if entry.units}
    assert units == {"up": UNIT, "down": -3 * UNIT, "half": 750_000_000, "none": 0, "huge": UNIT}
    closed = scene.only(RoundScored)
    assert {name: (row.status, row.fault, row.charge_units) for name, row in ended(scene).items()} == {
        "up": ("SCORED", None, None),
        "down": ("SCORED", None, None),
        "half": ("SCORED", None, None),
        "none": ("SCORED", None, None),
        "huge": ("SCORED", None, None),
        "away": ("ABSENT", "model", None),
        "broken": ("FAILED", "model", None),
        "lost": ("ABSENT", "node", None),
    }
    assert (closed.at, closed.data.point, closed.data.resolvable_at) == (T0 + MINUTE, T0, T0 + MINUTE)
    assert (closed.data.horizon_seconds, closed.data.contract_hash) == (60, HASH)


@pytest.mark.parametrize("order", ["truth first", "round first", "round in between"])
def test_the_order_of_truth_and_round_does_not_matter(order):
    scene = stage()
    if order == "round first":
        answered(scene, T0, {"m": 0.5}).then()
    scene.when("inputs", received(T0)).then()
    if order == "round in between":
        answered(scene, T0, {"m": 0.5}).then()
    scene.when("inputs", resolved(T0))
    if order == "truth first":
        scene.then()
        scene.when("predictions", opened(T0, ["m"])).then()  # opened is not yet answered
        scene.when("predictions", *answers(T0, {"m": 0.5}))
    scene.then(RoundScored)


def test_waiting_rounds_are_scored_in_the_order_of_the_inputs():
    scene = stage()
    points = [T0 + i * MINUTE for i in range(5)]
    for point in points:
        scene.when("inputs", received(point))
    for point in points:
        scene.when("inputs", resolved(point)).then()
    closed = []
    for point in reversed(points):
        answered(scene, point, {"m": 0.5})
        closed += [event.data.point for event in scene.all(RoundScored)]
    assert closed == points


def test_the_answers_of_open_rounds_are_kept_as_the_bytes_they_came_in():
    """A node that waits a day for its truths has thousands of rounds with a hundred answers each."""
    scene, models = stage(), {f"m{number:03}": number / 7 for number in range(100)}
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for minute in range(20):
        answered(scene, T0 + minute * MINUTE, models)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(scene.stage.state.rounds) == 20
    assert held / (20 * len(models)) < 110  # a record has some 70 bytes an answer; objects would take 290
    assert len({id(open_round.roster) for open_round in scene.stage.state.rounds.values()}) == 1
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0)).then(RoundScored)
    assert scene.only(RoundScored).data.models == list(models)


def test_a_round_with_two_horizons_is_closed_horizon_by_horizon():
    scopes = {"60s": 60, "300s": 300}
    scene = answered(stage(), T0, {"m": 0.5}, tuple(scopes))
    scene.when("inputs", received(T0, scopes=scopes))
    scene.when("inputs", resolved(T0, horizon_seconds=60, last=False)).then(RoundScored)
    assert scene.only(RoundScored).data.scope_key == "60s"
    scene.when("inputs", resolved(T0, horizon_seconds=300)).then(RoundScored)
    assert scene.only(RoundScored).data.resolvable_at == T0 + 300_000


def test_a_round_without_any_model_is_closed_too():
    scene = answered(stage(), T0, {})
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0)).then(RoundScored)
    assert ended(scene) == {}


def test_without_a_truth_nobody_is_scored_and_nobody_is_at_fault():
    scene = scored(DEFAULT, change=None).then(RoundScored)
    reason = "no ground truth: gap: no record within the window"
    assert ended(scene) == {"m": ScoreEntry("m", "FAILED", "node", reason=reason)}


# --- the author's function -------------------------------------------------------------------------------


class Optional(BaseModel):
    value: float | None = None
    success: bool = True


class Rich(ScoreResult):
    hit: bool = True
    edge: float = 0.25
    label: str = ""


class Whole(ScoreResult):
    value: int


def without_text(prediction, truth):
    raise KeyError(10**5000)  # Python makes no text of so many digits


def raising(prediction, truth):
    raise ZeroDivisionError("no return")


def giving(result):
    return lambda prediction, truth: result


SCORING = {
    # scoring function: (score type, units or None, reason, fault)
    "a float field": (giving({"value": 0.1}), ScoreResult, {"value": 100_000_000}, "", ""),
    "more numbers, no booleans": (
        giving({"value": 1, "hit": True, "label": "x"}), Rich, {"value": UNIT, "edge": 250_000_000}, "", "",
    ),
    "raises": (raising, ScoreResult, None, "score_prediction: ZeroDivisionError: no return", "node"),
    "gives nothing": (giving(None), ScoreResult, None, "score_prediction: ValidationError", "node"),
    "NaN": (giving({"value": float("nan")}), ScoreResult, None, "score is not finite: nan", "node"),
    "infinite": (giving({"value": float("-inf")}), ScoreResult, None, "score is not finite: -inf", "node"),
    "beyond 2**53 units": (giving({"value": 9_007_200.0}), ScoreResult, None, "beyond 2**53 units", "node"),
    "beyond all": (giving({"value": 1e300}), ScoreResult, None, "beyond 2**53 units", "node"),
    "an int of too many digits for a text": (
        giving({"value": -(10**8000)}), Whole, None, "score is beyond 2**53 units: -1.000e+8000", "node",
    ),
    "raises an error without a text": (
        without_text, ScoreResult, None, "score_prediction: KeyError: (its text cannot be made)", "node",
    ),
    "a second field that is NaN": (
        giving({"value": 0.0, "edge": float("nan")}), Rich, None, "score is not finite: nan", "node",
    ),
    "says that it failed": (
        giving({"value": 0.0, "success": False, "failed_reason": "no side"}), ScoreResult, None, "no side", "model",
    ),
    "says that it failed and no more": (
        giving({"value": 0.0, "success": False}), ScoreResult, None, "score_prediction said success=False", "model",
    ),
    "no number where the value should be": (
        giving({"value": None}), Optional, None, "score_prediction gave no number for 'value'", "node",
    ),
    "a reason that cannot be written": (
        giving({"value": 0.0, "success": False, "failed_reason": "\ud800" * 999}), ScoreResult, None, "?" * 300, "model",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "score_type", "units", "reason", "fault"), SCORING.values(), ids=SCORING
)
def test_a_result_is_one_score_or_one_reason(function, score_type, units, reason, fault):
    try:
        contract = CrunchContract(score_prediction=function, score_type=score_type)
        scene = scored(contract)
    except UnicodeEncodeError:
        pytest.fail("a reason stopped the stage")
    if units is not None:
        scene.then(RoundScored)
        assert ended(scene) == {"m": ScoreEntry("m", "SCORED", units=units)}
        return
    scene.then(RoundScored)
    stated_reason = ended(scene)["m"].reason
    assert reason in stated_reason
    assert ended(scene) == {"m": ScoreEntry("m", "FAILED", fault, reason=stated_reason)}


def moody(prediction, truth):
    if prediction.value < 0:
        raise ValueError("I do not like it")
    return {"value": float("nan") if prediction.value > 1 else prediction.value}


def test_one_prediction_that_cannot_be_scored_does_not_stop_the_others():
    """W3 of the peer: one exception stopped scores, snapshots and checkpoints for all."""
    scene = answered(
        stage(CrunchContract(score_prediction=moody)), T0, {"a": 0.1, "b": -0.5, "c": 2.0, "d": 0.3}
    )
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0)).then(RoundScored)
    assert [(name, row.status, bool(row.reason)) for name, row in ended(scene).items()] == [
        ("a", "SCORED", False),
        ("b", "FAILED", True),
        ("c", "FAILED", True),
        ("d", "SCORED", False),
    ]


def squaring(prediction, truth):
    return {"value": prediction.value**2}  # 1e300 overflows


def broken_today(prediction, truth):
    if truth.return_ > 0:
        raise ValueError("a case that the author forgot")
    return {"value": 0.0}


BLAMED = {
    # scoring function, answers, who is at fault for the failures
    "an absurd answer among good ones": (squaring, {"a": 1e300, "b": 0.5}, "model"),
    "nobody but the absurd one": (squaring, {"a": 1e300}, "model"),
    "nobody but absurd ones: no number of accounts makes it a way out": (
        squaring, {"a": 1e300, "b": -1e300, "c": 1e308}, "model",
    ),
    "raises for some answers": (moody, {"a": -0.5, "b": 0.5}, "model"),
    "not finite for some answers": (moody, {"a": 5.0}, "model"),
    "raises for every answer by this truth": (broken_today, {"a": 0.5, "b": 1e300}, "node"),
    "gives no number for anybody": (giving({"value": float("nan")}), {"a": 0.5, "b": 0.1}, "node"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "answers_by_model", "fault"), BLAMED.values(), ids=BLAMED)
def test_a_failed_scoring_is_the_models_fault_if_other_answers_can_be_scored(
    function, answers_by_model, fault
):
    scene = answered(
        stage(CrunchContract(score_prediction=function, absence_policy="zero")), T0, answers_by_model
    )
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0, change=0.01))
    failed = [row for row in ended(scene).values() if row.status == "FAILED"]
    assert {(row.fault, bool(row.reason)) for row in failed} == {(fault, True)}


# --- charges ---------------------------------------------------------------------------------------------

ENTRIES = [
    ScoreEntry("a", "SCORED"),
    ScoreEntry("b", "ABSENT", "model"),
    ScoreEntry("c", "ABSENT", "node"),
    ScoreEntry("d", "FAILED", "model"),
    ScoreEntry("e", "FAILED", "node"),
]
CHARGES = {
    # policy, direction, the round's scores: the charge if the model is at fault
    "ignored": ("ignore", "desc", [5, 1], None),
    "zero": ("zero", "desc", [5, 1], 0),
    "zero though nobody scored": ("zero", "desc", [], 0),
    "the worst of few": ("worst_percentile", "desc", [5, 1, 3], 1),
    "the worst of ten": ("worst_percentile", "desc", list(range(10)), 0),
    "the second worst of eleven": ("worst_percentile", "desc", list(range(11)), 1),
    "the second worst of twenty": ("worst_percentile", "desc", list(range(20)), 1),
    "less is better": ("worst_percentile", "asc", [5, 1, 3], 5),
    "less is better, of eleven": ("worst_percentile", "asc", list(range(11)), 9),
    "nobody scored": ("worst_percentile", "desc", [], None),
    "the round's worst": ("worst", "desc", [5, 1, 3], 1),
    "the round's worst where less is better": ("worst", "asc", [5, 1, 3], 5),
    "the worst of nobody": ("worst", "desc", [], None),
    "a constant": (AbsenceConstant(value=-2e-9), "desc", [5, 1], -2),
    "a constant though nobody scored": (AbsenceConstant(value=7e-9), "asc", [], 7),
    "the median": (AbsencePercentile(percent=50), "desc", [5, 1, 3], 3),
    "the 90th where less is better": (AbsencePercentile(percent=10), "asc", list(range(20)), 18),
    "0.07 of a hundred is the seventh": (AbsencePercentile(percent=7), "desc", list(range(100)), 6),
    "the best": (AbsencePercentile(percent=100), "desc", [5, 1, 3], 5),
}


@pytest.mark.parametrize(("policy", "direction", "values", "charge"), CHARGES.values(), ids=CHARGES)
def test_charges(policy, direction, values, charge):
    terms = make_terms(CrunchContract(absence_policy=policy), HASH, Settings(), 0)
    out = charged(ENTRIES, values, msgspec.structs.replace(terms, ranking_direction=direction))
    assert [row.charge_units for row in out] == [None, charge, None, charge, None]
    assert [(row.model_id, row.status, row.fault) for row in out] == [
        (o.model_id, o.status, o.fault) for o in ENTRIES
    ]


def test_charges_are_fixed_in_the_round_and_only_where_the_model_is_at_fault():
    scene = answered(stage(absence_policy="worst_percentile"), T0, ROUND)
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0))
    charges = {name: row.charge_units for name, row in ended(scene).items()}
    assert charges == dict.fromkeys(ROUND) | {"away": -3 * UNIT, "broken": -3 * UNIT}


@pytest.mark.parametrize(
    ("policy", "charge"),
    [("zero", 0), ("constant", -UNIT), ("worst", None), ("worst_percentile", None)],
)
def test_without_a_truth_a_silent_model_gets_only_a_fixed_charge(policy, charge):
    """As the page of the contract's fields says: other policies charge by the round's scores, and there are none."""
    scene = answered(stage(absence_policy=policy, absence_units=-UNIT), T0, ROUND)
    scene.when("inputs", received(T0))
    scene.when("inputs", resolved(T0, change=None))
    faults = {name: (row.fault, row.charge_units) for name, row in ended(scene).items()}
    assert {name: charge for name, (fault, charge) in faults.items() if fault == "model"} == {
        "away": charge,
        "broken": charge,
    }
    assert {charge for fault, charge in faults.values() if fault != "model"} == {None}


# --- how far all is scored -------------------------------------------------------------------------------


def test_a_period_is_scored_when_the_watermark_has_passed_it_and_everything_before_is_closed():
    scene = stage()
    point = T0 + 59 * MINUTE
    scene.when("inputs", received(point), inputs_until(T0 + 30 * MINUTE))
    assert scene.only(ScoredUntil).data.until == T0
    scene.when("inputs", resolved(point), inputs_until(T0 + HOUR)).then()  # the round is not there yet
    answered(scene, point, {"m": 0.5})
    scene.then(RoundScored, ScoredUntil)
    assert scene.only(ScoredUntil).data.until == T0 + HOUR


def test_a_watermark_within_a_period_changes_nothing():
    scene = stage()
    scene.when("inputs", inputs_until(T0 + 1)).then(ScoredUntil)
    scene.when("inputs", inputs_until(T0 + 30 * MINUTE)).then()
    scene.when("inputs", inputs_until(T0 + HOUR - 1)).then()
    scene.when("inputs", inputs_until(T0 + 10 * HOUR, rehearsal=True)).then(ScoredUntil)
    assert (scene.made[0].data.until, scene.made[0].data.rehearsal) == (T0 + 10 * HOUR, True)


def test_periods_are_cut_where_new_terms_begin():
    scene = stage(snapshot_interval_ms=4 * HOUR)
    scene.when(
        "inputs", configured(snapshot_interval_ms=4 * HOUR, effective_from=T0 + 6 * HOUR, score_decimals=6)
    )
    reached = []
    for hours in (1, 5, 6, 7, 9):
        scene.when("inputs", inputs_until(T0 + hours * HOUR))
        reached += [(event.data.until - T0) // HOUR for event in scene.all(ScoredUntil)]
    assert reached == [0, 4, 6, 8]


def test_a_stage_with_nothing_to_decide_records_its_position_now_and_then(monkeypatch):
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", 5)
    scene = stage()
    scene.when("inputs", inputs_until(T0 + 1)).then(ScoredUntil)
    empty = []
    for i in range(2, 20):
        scene.when("inputs", inputs_until(T0 + i)).then()
        empty += [draft.upto for draft in scene.drafts]
    assert empty == [{"inputs": (6, 0)}, {"inputs": (11, 0)}, {"inputs": (16, 0)}]


def test_need_is_the_oldest_open_input_and_round():
    scene = given(ScoreStage(shelf())).at("inputs", 10).at("predictions", 20)
    scene.when("inputs", configured())
    for i in range(3):
        scene.when("inputs", received(T0 + i * MINUTE, scopes={"60s": 60, "300s": 300}))
        answered(scene, T0 + i * MINUTE, {"m": 0.5}, ("60s", "300s"))
    scene.when("inputs", resolved(T0, last=False))
    assert scene.drafts[-1].need == {"inputs": Need(11, 1, 11), "predictions": Need(20, 1, 20)}
    scene.when("inputs", resolved(T0 + MINUTE, last=False))
    assert scene.drafts[-1].need == {"inputs": Need(11, 1, 11), "predictions": Need(20, 1, 20)}
    scene.when("inputs", resolved(T0, horizon_seconds=300))
    scene.when("inputs", resolved(T0 + 2 * MINUTE, last=False))
    assert scene.drafts[-1].need == {"inputs": Need(12, 1, 12), "predictions": Need(22, 1, 22)}
