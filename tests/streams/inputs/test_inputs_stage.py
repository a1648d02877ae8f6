"""The input stage opens inputs: which points of the grid become inputs, from which records, and which are skipped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel
from tests.given import given
from tests.streams.build import (
    DEFAULT,
    HASH,
    HOUR,
    MINUTE,
    SUBJECT,
    T0,
    configured,
    record,
    scope,
    shelf,
    terms,
    tick,
)

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import CrunchConfigured, InputReceived, InputResolved, InputsUntil
from coordinator.streams.inputs.stage import InputStage


def stage(contract: CrunchContract = DEFAULT, **changes: Any):
    """A stage that has received its terms."""
    return given(InputStage(shelf(contract))).when("feeds", configured(**changes)).then(CrunchConfigured)


def minutes(scene, *numbers: int, subject: str = SUBJECT) -> list[list[int]]:
    """Delivers one candle and tick per minute. Returns the points opened at each, in minutes."""
    out = []
    for number in numbers:
        at = T0 + number * MINUTE
        scene.when("feeds", record(at, 100.0 + number, subject), tick(at))
        out.append([(event.data.point - T0) // MINUTE for event in scene.all(InputReceived)])
    return out


def skips(scene) -> list[tuple[int, int, int, str]]:
    return [
        ((skip.from_point - T0) // MINUTE, (skip.until_point - T0) // MINUTE, skip.count, skip.reason)
        for event in scene.all(InputsUntil)
        for skip in event.data.skipped
    ]


def test_nothing_is_asked_before_there_are_terms():
    given(InputStage(shelf())).when("feeds", record(T0), tick(T0)).then()


def test_an_empty_decision_of_the_feed_is_passed_over():
    """A feed that decides nothing for a long time records an empty decision, so that a new owner can begin there."""
    scene = stage()
    before = len(minutes(scene, 0))
    scene.when("feeds").then()
    assert before == len(minutes(scene, 1)) == 1


def test_terms_are_passed_on_unchanged():
    event = configured()
    given(InputStage(shelf())).when("feeds", event).then(event)


def test_the_first_point_is_the_grid_point_at_or_after_the_first_record():
    assert minutes(stage(), 0, 1, 2) == [[0], [1], [2]]


def test_a_first_record_between_points_waits_for_the_next_point():
    scene = stage()
    scene.when("feeds", record(T0 + 20_000), tick(T0 + 20_000)).then(InputsUntil)
    scene.when("feeds", record(T0 + 40_000), tick(T0 + 40_000)).then(InputsUntil)
    scene.when("feeds", record(T0 + 61_000, 101.0), tick(T0 + 61_000)).then(InputReceived, InputsUntil)
    event = scene.only(InputReceived)
    assert event.data.point == T0 + MINUTE  # the grid's time, though the record came a second later
    assert event.at == T0 + 61_000
    assert event.data.deadline_at == T0 + 71_000
    assert [scope_.resolvable_at for scope_ in event.data.scopes] == [T0 + 2 * MINUTE]
    seen = json.loads(bytes(event.data.payload))
    assert [candle["ts"] for candle in seen["candles"]] == [
        T0 - 40_000,
        T0 - 20_000,
    ]  # only records with at <= point


def test_an_input_contains_what_was_known_at_its_point_and_no_more():
    scene = stage()
    minutes(scene, *range(5))
    payload = json.loads(bytes(scene.only(InputReceived).data.payload))
    assert payload["symbol"] == SUBJECT
    assert payload["asof_ts"] == T0 + 4 * MINUTE
    assert [candle["close"] for candle in payload["candles"]] == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert [candle["ts"] for candle in payload["candles"]] == [T0 + (i - 1) * MINUTE for i in range(5)]


def test_an_input_contains_the_last_120_records():
    scene = stage()
    minutes(scene, *range(130))
    payload = json.loads(bytes(scene.only(InputReceived).data.payload))
    assert len(payload["candles"]) == 120
    assert payload["candles"][-1]["close"] == 229.0
    assert payload["candles"][0]["close"] == 110.0


@pytest.mark.parametrize(
    ("tick_after_ms", "opened"),
    [(9_999, True), (10_000, True), (10_001, False)],
    ids=["in time", "at the deadline", "after it"],
)
def test_a_point_is_skipped_if_the_clock_passes_its_deadline_before_a_record_comes(tick_after_ms, opened):
    scene = stage()
    minutes(scene, 0)
    point = T0 + MINUTE
    scene.when("feeds", tick(point + tick_after_ms))
    late = record(point + tick_after_ms, 101.0)
    scene2 = scene.when("feeds", late)
    assert [event.data.point for event in scene2.all(InputReceived)] == ([point] if opened else [])


def test_a_skipped_point_is_recorded_once_with_its_reason():
    scene = stage()
    minutes(scene, 0)
    scene.when("feeds", tick(T0 + MINUTE + 10_001))
    assert skips(scene) == [(1, 1, 1, "the clock passed the deadline before a record came")]
    scene.when("feeds", tick(T0 + MINUTE + 30_000))
    assert skips(scene) == []
    assert minutes(scene, 2) == [[2]]


def test_an_outage_causes_neither_a_flood_of_inputs_nor_predictions_with_hindsight():
    scene = stage()
    minutes(scene, 0)
    at = T0 + 60 * MINUTE
    scene.when("feeds", record(at), tick(at))
    assert [event.data.point for event in scene.all(InputReceived)] == [at]
    assert skips(scene) == [(1, 59, 59, "the clock passed the deadline before a record came")]


def test_a_point_opened_beside_skipped_ones_is_handled_once():
    """The skipped points of a decision are older than the point that it opens. They must not bring it back."""
    scene = stage()
    minutes(scene, 0)
    at = T0 + 60 * MINUTE
    scene.when("feeds", record(at), tick(at))
    assert len(scene.all(InputReceived)) == 1
    scene.when("feeds", record(at + 5_000), tick(at + 5_000))
    assert scene.all(InputReceived) == []
    assert skips(scene) == []
    scene.when("feeds", record(at + MINUTE), tick(at + MINUTE))
    assert [event.data.point for event in scene.all(InputReceived)] == [at + MINUTE]
    assert skips(scene) == []


def test_late_records_from_history_open_nothing_but_are_used():
    scene = stage()
    minutes(scene, 0)
    at = T0 + MINUTE
    scene.when("feeds", record(at, 55.0, backfilled=True))
    assert skips(scene) == [(1, 1, 1, "its record came late (backfilled)")]
    minutes(scene, 2)
    payload = json.loads(bytes(scene.only(InputReceived).data.payload))
    assert [candle["close"] for candle in payload["candles"]] == [100.0, 55.0, 102.0]


def test_two_subjects_have_separate_inputs_with_their_own_records():
    """W12 of the peer: any record triggered every subject, on one subject's data."""
    scene = stage(scopes=[scope(), scope(subject="ETHUSDT")], subjects=[SUBJECT, "ETHUSDT"])
    scene.when("feeds", record(T0, 100.0), record(T0, 7.0, "ETHUSDT"), tick(T0))
    opened = {event.data.subject: json.loads(bytes(event.data.payload)) for event in scene.all(InputReceived)}
    assert {name: payload["candles"][-1]["close"] for name, payload in opened.items()} == {
        SUBJECT: 100.0,
        "ETHUSDT": 7.0,
    }
    scene.when("feeds", record(T0 + MINUTE, 101.0), tick(T0 + MINUTE))
    assert [event.data.subject for event in scene.all(InputReceived)] == [SUBJECT]
    scene.when("feeds", record(T0 + MINUTE, 8.0, "ETHUSDT"))
    assert [event.data.subject for event in scene.all(InputReceived)] == ["ETHUSDT"]


def test_two_horizons_on_one_grid_are_one_input_with_two_scopes():
    scene = stage(scopes=[scope("300s", horizon_seconds=300, order=1), scope("60s", order=2)])
    minutes(scene, 0)
    data = scene.only(InputReceived).data
    assert [(scope_terms.scope_key, scope_terms.horizon_seconds) for scope_terms in data.scopes] == [
        ("300s", 300),
        ("60s", 60),
    ]
    assert [scope_terms.resolvable_at for scope_terms in data.scopes] == [T0 + 5 * MINUTE, T0 + MINUTE]


def test_scopes_of_two_grids_share_an_input_only_where_their_points_coincide():
    scene = stage(scopes=[scope("fast"), scope("slow", interval_seconds=180)])
    keys = []
    for number in range(4):
        minutes(scene, number)
        keys.append([scope_terms.scope_key for scope_terms in scene.only(InputReceived).data.scopes])
    assert keys == [["fast", "slow"], ["fast"], ["fast"], ["fast", "slow"]]


def test_a_feed_of_another_kind_or_source_is_ignored():
    scene = stage()
    scene.when(
        "feeds", record(T0, granularity="5m"), record(T0, source="other"), record(T0, kind="trade"), tick(T0)
    )
    scene.then(InputsUntil)


@pytest.mark.parametrize("rehearsal", [True, False])
def test_an_input_tells_whether_it_is_live_or_a_rehearsal(rehearsal):
    scene = stage().when("feeds", record(T0), tick(T0, rehearsal=rehearsal))
    assert scene.only(InputReceived).data.rehearsal is rehearsal
    assert scene.only(InputsUntil).data.rehearsal is rehearsal


# --- the author's function -------------------------------------------------------------------------------


def raises(records):
    raise RuntimeError("no idea")


def moody(records):
    if records[-1].at == T0 + MINUTE:
        raise ValueError("not this one")
    return {"symbol": "x", "asof_ts": records[-1].at}


class Open(BaseModel):
    model_config = {"extra": "allow"}


BROKEN_INPUTS = {
    "raises": (raises, "build_input: RuntimeError: no idea"),
    "not of the type": (lambda records: {"symbol": "x"}, "build_input: ValidationError"),
    "NaN": (lambda records: {"x": [1.0, float("nan")]}, "not finite: .x[1]"),
    "infinite": (lambda records: {"x": {"y": float("-inf")}}, "not finite: .x.y"),
    "half a letter": (lambda records: {"x": "\ud800"}, "build_input: "),
    "an object that is no JSON": (lambda records: {"x": object()}, "build_input: "),
}


@pytest.mark.parametrize(("function", "reason"), BROKEN_INPUTS.values(), ids=BROKEN_INPUTS)
def test_a_point_for_which_the_contract_makes_no_input_is_skipped_with_its_reason(function, reason):
    input_type = DEFAULT.input_type if "not of the type" in reason or "ValidationError" in reason else Open
    contract = CrunchContract(build_input=function, input_type=input_type)
    scene = stage(contract)
    scene.when("feeds", record(T0), tick(T0)).then(InputsUntil)
    ((from_point, until_point, count, stated_reason),) = skips(scene)
    assert (from_point, until_point, count) == (0, 0, 1)
    assert reason in stated_reason
    scene.when("feeds", record(T0 + MINUTE), tick(T0 + MINUTE)).then(InputsUntil)  # the next point opens


def test_one_bad_point_does_not_stop_the_next():
    contract = CrunchContract(build_input=moody)
    assert minutes(stage(contract), 0, 1, 2) == [[0], [], [2]]


# --- new terms -------------------------------------------------------------------------------------------


def test_new_terms_are_in_force_from_their_boundary_on():
    other = CrunchContract(crunch_pubkey=None)
    scene = given(InputStage(shelf(new=other))).when("feeds", configured())
    at = T0 + 6 * HOUR
    minutes(scene, 357)
    scene.when("feeds", configured(contract_hash="new", effective_from=at, deadline_ms=3_000))
    scene.then(CrunchConfigured)
    for number, expected in ((358, HASH), (359, HASH), (360, "new"), (361, "new")):
        minutes(scene, number)
        assert scene.only(InputReceived).data.contract_hash == expected
    assert scene.only(InputReceived).data.deadline_at == T0 + 361 * MINUTE + 3_000


def test_an_input_opened_under_old_terms_is_resolved_by_the_old_contract():
    marked = CrunchContract(resolve_ground_truth=lambda records: None)
    scene = given(InputStage(shelf(new=marked))).when("feeds", configured())
    minutes(scene, 359)
    scene.when("feeds", configured(contract_hash="new", effective_from=T0 + 6 * HOUR))
    minutes(scene, 360)
    assert scene.only(InputResolved).data.truth["resolved_price"] == 460.0
    minutes(scene, 361)
    assert scene.only(InputResolved).data.reason == "resolve_ground_truth gave None"


def test_a_scope_that_new_terms_drop_opens_no_more_and_a_new_scope_begins_at_the_boundary():
    at = T0 + 6 * HOUR
    scene = given(InputStage(shelf())).when("feeds", configured())
    scene.when(
        "feeds",
        configured(effective_from=at, scopes=[scope("120s", horizon_seconds=120, interval_seconds=120)]),
    )
    keys = {}
    for number in range(357, 364):
        minutes(scene, number)
        keys[number] = [s.scope_key for e in scene.all(InputReceived) for s in e.data.scopes]
    assert keys == {357: ["60s"], 358: ["60s"], 359: ["60s"], 360: ["120s"], 361: [], 362: ["120s"], 363: []}
    assert terms().scopes[0].scope_key == "60s"
