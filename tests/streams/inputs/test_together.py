"""Several subjects in one input: when it opens, what it is made of, and that it has the truth of each or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.given import given
from tests.streams.build import HASH, MINUTE, T0, configured, gap_found, record, scope, shelf, terms, tick

from coordinator.streams.contract import CrunchContract, PredictionScope, ScheduledPrediction
from coordinator.streams.contract.terms import asking_as, make_terms
from coordinator.streams.events import (
    CrunchConfigured,
    Feed,
    InputOpenedOverGap,
    InputReceived,
    InputResolved,
    InputsUntil,
)
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings

BTC, ETH = "BTCUSDT", "ETHUSDT"
PAIR = f"{BTC}+{ETH}"
TOGETHER = ScheduledPrediction(scope_key="pair", scope=PredictionScope(subject=(BTC, ETH)))
CONTRACT = CrunchContract(scheduled_predictions=[TOGETHER], input_records=3)
TERMS: dict[str, Any] = {
    "subjects": [BTC, ETH],
    "scopes": [scope("pair", PAIR, together=[BTC, ETH])],
    "input_records_max": 3,
}


def stage(contract: CrunchContract = CONTRACT, **changes: Any):
    return (
        given(InputStage(shelf(contract)))
        .when("feeds", configured(**(TERMS | changes)))
        .then(CrunchConfigured)
    )


def at(number: float) -> int:
    return T0 + round(number * MINUTE)


def closes(scene) -> dict[str, list[float]]:
    seen = json.loads(bytes(scene.only(InputReceived).data.payload))
    return {subject: [candle["close"] for candle in window["candles"]] for subject, window in seen.items()}


def test_it_opens_once_each_subject_has_its_record_and_has_the_window_of_each():
    scene = stage()
    for number in range(3):
        scene.when("feeds", record(at(number), 100.0 + number, BTC))
        scene.when("feeds", record(at(number), 10.0 + number, ETH), tick(at(number)))
    scene.when("feeds", record(at(3), 103.0, BTC)).then()
    scene.when("feeds", record(at(3), 13.0, ETH), tick(at(3)))
    opened = scene.only(InputReceived)
    assert (opened.data.subject, opened.data.point, opened.id) == (
        PAIR,
        at(3),
        f"inp/{PAIR}/{at(3)}:received",
    )
    assert [scope.scope_key for scope in opened.data.scopes] == ["pair"]
    assert closes(scene) == {BTC: [101.0, 102.0, 103.0], ETH: [11.0, 12.0, 13.0]}


def test_its_deadline_counts_from_the_last_of_their_records():
    scene = stage()
    scene.when("feeds", record(at(0), 1.0, BTC), record(at(0), 1.0, ETH), tick(at(0)))
    scene.when("feeds", record(at(1), 1.0, BTC))
    scene.when("feeds", record(at(1) + 3_000, 1.0, ETH), tick(at(1) + 3_000))
    data = scene.only(InputReceived).data
    assert (data.point, data.deadline_at) == (at(1), at(1) + 13_000)


def test_one_that_is_silent_past_the_deadline_skips_the_point_for_both():
    scene = stage()
    scene.when("feeds", record(at(0), 1.0, BTC), record(at(0), 1.0, ETH), tick(at(0)))
    scene.when("feeds", record(at(1), 1.0, BTC), tick(at(1)))
    scene.when("feeds", tick(at(1) + 10_001))
    (skipped,) = scene.only(InputsUntil).data.skipped
    assert (skipped.subject, skipped.from_point, skipped.count) == (PAIR, at(1), 1)
    scene.when("feeds", record(at(1), 1.0, ETH), tick(at(1) + 12_000))
    assert scene.all(InputReceived) == []


def test_the_one_that_is_far_ahead_still_has_its_window():
    """Quotes: a hundred of one subject come before the first of the other, at a point within the deadline."""
    ticks = Feed(source="binance", kind="tick", granularity="1s")

    def quote(when: int, price: float, subject: str):
        values = {"price": f"{price:.2f}"}
        kind = {"source": "binance", "kind": "tick", "granularity": "1s", "ts_event": when, "values": values}
        return record(when, price, subject, **kind)

    scene = stage(feed=ticks)
    for i in range(10, 0, -1):
        scene.when("feeds", quote(at(1) - i * 1000, 100.0 - i, BTC), quote(at(1) - i * 1000, 10.0 - i, ETH))
    for i in range(100):
        scene.when("feeds", quote(at(1) + 50 * i, 500.0 + i, BTC)).then()
    scene.when("feeds", quote(at(1) + 6_000, 20.0, ETH), tick(at(1) + 6_000))
    seen = json.loads(bytes(scene.only(InputReceived).data.payload))
    assert [tick_["price"] for tick_ in seen[BTC]["ticks"]] == [98.0, 99.0, 500.0]
    assert [tick_["price"] for tick_ in seen[ETH]["ticks"]] == [7.0, 8.0, 9.0]


def rounds_of(scene, *numbers: int) -> list[InputResolved]:
    resolutions = []
    for number in numbers:
        scene.when(
            "feeds", record(at(number), 100.0 + number, BTC), record(at(number), 10.0, ETH), tick(at(number))
        )
        resolutions += scene.all(InputResolved)
    return resolutions


def test_it_has_the_truth_of_each_subject():
    (resolved,) = rounds_of(stage(), 0, 1)
    assert resolved.data.truth is not None
    assert resolved.data.truth[BTC] == {
        "entry_price": 100.0, "resolved_price": 101.0, "return": 0.01, "direction_up": True
    }  # fmt: skip
    assert resolved.data.truth[ETH]["return"] == 0.0


def test_without_the_truth_of_one_there_is_none_and_it_is_named():
    scene = stage()
    scene.when("feeds", record(at(0), 1.0, BTC), record(at(0), 1.0, ETH), tick(at(0)))
    scene.when("feeds", record(at(1), 2.0, BTC), tick(at(1)))
    assert scene.all(InputResolved) == []  # what is missing may still come
    scene.when("feeds", tick(at(1) + 21_600_001))
    resolved = scene.only(InputResolved).data
    assert resolved.truth is None
    assert resolved.reason.startswith(f"{ETH}: gap: ")


def test_a_hole_in_any_of_the_windows_is_said_once():
    scene = stage()
    rounds_of(scene, 0, 1)
    holes = [gap_found(at(1), at(2), subject) for subject in (BTC, ETH)]
    scene.when("feeds", *holes, tick(at(2)))
    rounds_of(scene, 3)
    gaps = scene.only(InputOpenedOverGap).data.gaps
    assert [(gap.from_ms, gap.until_ms) for gap in gaps] == [(at(1), at(2))]


def test_a_fault_of_the_contract_names_the_subject():
    def build_input(records: Any) -> Any:
        if records[-1].subject == ETH:
            raise ValueError("no ether")
        return {"symbol": BTC, "asof_ts": 1}

    scene = stage(CONTRACT.model_copy(update={"build_input": build_input}))
    scene.when("feeds", record(at(0), 1.0, BTC), record(at(0), 1.0, ETH), tick(at(0)))
    (skipped,) = scene.only(InputsUntil).data.skipped
    assert skipped.reason == f"{ETH}: build_input: ValueError: no ether"


def test_the_first_tick_names_the_window_of_each():
    contract = CONTRACT.model_copy(update={"input_records_first": 5})
    scene = stage(contract, input_records_max=5)
    rounds_of(scene, *range(8))
    history = scene.only(InputReceived).data.history
    assert history is not None
    assert history.since == {BTC: at(3), ETH: at(3)}


def settings(subjects: str = f"{BTC},{ETH}"):
    return read_settings({"FEED_SUBJECTS": subjects, "CRUNCH_ID": "x", "FEED_SOURCE": "binance"})


def test_terms_name_the_joint_subject_and_its_members():
    (asked,) = make_terms(CONTRACT, HASH, settings(), 0).scopes
    assert (asked.subject, asked.members) == (PAIR, [BTC, ETH])


def test_a_member_that_no_feed_delivers_is_refused_by_name():
    with pytest.raises(OperatorError, match=f"has the subject '{ETH}'"):
        make_terms(CONTRACT, HASH, settings(BTC), 0)


@pytest.mark.parametrize("subject", [(), (BTC,), (BTC, BTC), (BTC, "")])
def test_together_are_two_or_more_each_once(subject):
    with pytest.raises(ValueError, match="two or more"):
        PredictionScope(subject=subject)


def test_subjects_that_change_take_only_those_along_that_lost_one():
    both = scope("60s", BTC), scope("60s", ETH)
    held = terms(**(TERMS | {"scopes": [*both, *TERMS["scopes"]]}))
    more = asking_as(held, terms(**(TERMS | {"subjects": [BTC, ETH, "SOLUSDT"], "contract_hash": "other"})))
    assert {(scope.scope_key, scope.subject) for scope in more.scopes} == {
        ("pair", PAIR), ("60s", BTC), ("60s", ETH), ("60s", "SOLUSDT")
    }  # fmt: skip
    fewer = asking_as(held, terms(**(TERMS | {"subjects": [BTC], "contract_hash": "other"})))
    assert [(scope.scope_key, scope.subject) for scope in fewer.scopes] == [("60s", BTC)]


def test_a_round_whose_subject_was_taken_out_has_no_truth():
    scene = stage()
    scene.when("feeds", record(at(0), 1.0, BTC), record(at(0), 1.0, ETH), tick(at(0)))
    fewer = {"subjects": [BTC], "scopes": [], "effective_from": at(0.5), "goes_on": True}
    scene.when("feeds", configured(**fewer), tick(at(0.6)))
    assert scene.only(InputResolved).data.reason == f"the feed was changed: at {at(0.5)} {ETH} was taken out"
