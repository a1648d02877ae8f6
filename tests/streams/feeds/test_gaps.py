"""The input stage over a feed with gaps: inputs that name them, truths that wait, and what ends the wait."""

from __future__ import annotations

import pytest
from tests.given import Given, given
from tests.streams.build import (
    MINUTE,
    PUBKEY,
    T0,
    configured,
    gap_closed,
    gap_found,
    record,
    scope,
    shelf,
    tick,
)

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import Feed, InputOpenedOverGap, InputReceived, InputResolved, InputsUntil
from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.envelope import Need

WAIT_SECONDS = 600
FIVE_MINUTES = scope("300s", horizon_seconds=300, interval_seconds=3600)


def stage(**changes) -> Given:
    if changes.get("gap_policy") != "accept":  # which needs no wait
        changes |= {"gap_wait_seconds": WAIT_SECONDS}
    contract = CrunchContract(crunch_pubkey=PUBKEY, **changes)
    return given(InputStage(shelf(contract))).when("feeds", configured(scopes=[FIVE_MINUTES]))


def run(scene: Given, *minutes: int) -> Given:
    """Candles that close at these minutes after the point, each with its tick."""
    for minute in minutes:
        at = T0 + minute * MINUTE
        scene.when("feeds", record(at, 100.0 + minute), tick(at))
    return scene


def late(minute: int, price: float):
    return record(T0 + minute * MINUTE, price, backfilled=True)


def test_a_truth_waits_for_a_missing_record_of_its_window_and_uses_it():
    scene = run(stage(), 0, 1, 2, 4, 5)
    assert scene.all(InputResolved) == []
    scene.when("feeds", tick(T0 + 9 * MINUTE)).then(InputsUntil)
    assert scene.only(InputsUntil).data.until == T0 + 5 * MINUTE  # the period waits too
    truth = scene.when("feeds", late(3, 103.0)).only(InputResolved)
    assert truth.data.truth["resolved_price"] == 105.0
    assert truth.at == T0 + 9 * MINUTE  # when it became known, not when it should have been


def test_the_last_record_of_a_window_is_waited_for_too():
    scene = run(stage(), 0, 1, 2, 3, 4)
    scene.when("feeds", tick(T0 + 10 * MINUTE)).then(InputsUntil)
    run(scene, 11)
    assert scene.all(InputResolved) == []
    scene.when("feeds", late(5, 105.0))
    assert scene.only(InputResolved).data.truth["resolved_price"] == 105.0


def test_an_entry_other_than_the_points_own_is_waited_for():
    scene = run(stage(), -3, -2)
    scene.when("feeds", record(T0 + 5_000, 1.0), tick(T0 + 5_000))
    assert scene.only(InputOpenedOverGap).data.gaps[0].until_ms == T0
    run(scene, 1, 2, 3, 4, 5)
    assert scene.all(InputResolved) == []
    assert scene.when("feeds", late(0, 100.0)).only(InputResolved).data.truth["entry_price"] == 100.0


@pytest.mark.parametrize(("after_seconds", "given_up"), [(WAIT_SECONDS - 1, False), (WAIT_SECONDS, True)])
def test_the_wait_ends_with_a_reason(after_seconds, given_up):
    scene = run(stage(), 0, 1, 2, 4, 5)
    scene.when("feeds", tick(T0 + 5 * MINUTE + after_seconds * 1000))
    resolutions = scene.all(InputResolved)
    assert [(event.data.truth, event.data.reason) for event in resolutions] == given_up * [
        (None, "gap: 1 of 5 records are missing in the window, waited 600 s for them")
    ]


def test_a_feed_that_ended_is_given_up_after_the_same_time():
    scene = run(stage(), 0, 1)
    scene.when("feeds", tick(T0 + 5 * MINUTE + WAIT_SECONDS * 1000 - 1)).then(InputsUntil)
    scene.when("feeds", tick(T0 + 5 * MINUTE + WAIT_SECONDS * 1000))
    assert scene.only(InputResolved).data.reason == "gap: no record at or past the window's end within 600 s"


def test_a_gap_that_history_does_not_fill_is_not_waited_for():
    scene = run(stage(), 0, 1)
    scene.when("feeds", gap_found(T0 + MINUTE, T0 + 3 * MINUTE), tick(T0 + 4 * MINUTE - 1))
    run(scene, 4, 5)
    assert scene.all(InputResolved) == []
    scene.when("feeds", gap_closed(T0 + MINUTE, T0 + 3 * MINUTE, T0 + 6 * MINUTE), tick(T0 + 6 * MINUTE))
    assert scene.only(InputResolved).data.reason == (
        "gap: 2 of 5 records are missing in the window, and will not come"
    )


def test_closing_a_part_of_a_gap_does_not_end_the_wait():
    scene = run(stage(), 0, 1, 3, 5)
    scene.when("feeds", gap_closed(T0 + MINUTE, T0 + 2 * MINUTE, T0 + 6 * MINUTE)).then()
    scene.when("feeds", gap_closed(T0 + 3 * MINUTE, T0 + 4 * MINUTE, T0 + 6 * MINUTE)).then(InputResolved)


def test_a_contract_may_accept_the_records_that_there_are():
    scene = run(stage(gap_policy="accept"), 0, 1, 5)
    assert scene.only(InputResolved).data.truth["resolved_price"] == 105.0


def test_an_input_names_the_records_that_were_missing_for_its_models():
    scene = run(stage(), -9, -8, -5, -4, -2, -1, 0)
    scene.then(InputReceived, InputOpenedOverGap, InputsUntil)
    over = scene.only(InputOpenedOverGap)
    assert over.data.input_id == scene.only(InputReceived).data.input_id
    minutes = [((gap.from_ms - T0) // MINUTE, (gap.until_ms - T0) // MINUTE) for gap in over.data.gaps]
    assert minutes == [(-8, -6), (-4, -3)]
    assert over.at == T0


def test_an_input_without_gaps_names_none():
    run(stage(), -2, -1, 0).then(InputReceived, InputsUntil)


def test_a_gap_of_years_costs_no_more_than_one_of_minutes():
    """A node that was off for ten years of one-second candles must not count them one by one."""
    second, years = 1_000, 10 * 365 * 86_400_000
    holes, whole = Holes(), Wholeness(1_000)
    (span,) = holes.seen([T0, T0 + years], T0 + years, second)
    assert (span.from_ms, span.until_ms) == (T0, T0 + years - second)
    lack = holes.in_window([T0, T0 + years], T0, T0 + years, second)
    assert lack is not None
    assert lack.text.startswith(f"{years // second - 1} of ")
    whole.add(T0)
    ((from_ms, until_ms),), _ = whole.due(T0 + years, 10_000, [], connected=False)
    whole.add_gap(from_ms, until_ms)
    assert whole.gaps[0].missing == years // second - 10
    holes.closed(gap_closed(from_ms, until_ms, 0).data, Need())
    lack = holes.in_window([T0], T0, until_ms, second)
    assert lack is not None
    assert lack.lasting


# --- a feed without a cadence: only what the feed worker said is a hole ---------------------------------------

TICK = {"kind": "tick", "granularity": "1s"}


def ticks() -> Given:
    contract = CrunchContract(crunch_pubkey=PUBKEY, gap_wait_seconds=WAIT_SECONDS)
    terms = {"scopes": [FIVE_MINUTES], "feed": Feed(source="generated", kind="tick", granularity="1s")}
    scene = given(InputStage(shelf(contract))).when("feeds", configured(**terms))
    return scene.when("feeds", trade(0, 100.0), tick(T0))


def trade(minute: float, price: float, **changes):
    at = T0 + int(minute * MINUTE)
    return record(at, price, ts_event=at, values={"price": f"{price}"}, **(TICK | changes))


def test_a_quiet_market_is_no_gap():
    scene = ticks()
    scene.then(InputReceived, InputsUntil)
    scene.when("feeds", trade(0.1, 101.0), trade(5, 102.0), tick(T0 + 5 * MINUTE))
    assert scene.only(InputResolved).data.truth["resolved_price"] == 102.0


def test_a_recorded_silence_is_waited_out_until_it_is_closed():
    scene = ticks()
    scene.when("feeds", trade(0.1, 101.0), gap_found(T0 + 6_000, T0 + 2 * MINUTE, **TICK))
    scene.when("feeds", trade(5, 102.0), tick(T0 + 5 * MINUTE)).then(InputsUntil)
    scene.when(
        "feeds",
        trade(1, 50.0, backfilled=True),
        gap_closed(T0 + 6_000, T0 + 2 * MINUTE, T0 + 6 * MINUTE, complete=True, **TICK),
    )
    assert scene.only(InputResolved).data.truth["resolved_price"] == 102.0


def test_a_silence_that_stays_open_gives_no_truth():
    scene = ticks()
    scene.when("feeds", trade(0.1, 101.0), gap_found(T0 + 6_000, T0 + 2 * MINUTE, **TICK))
    scene.when("feeds", gap_closed(T0 + 6_000, T0 + 2 * MINUTE, T0 + 3 * MINUTE, **TICK), trade(5, 102.0))
    assert scene.only(InputResolved).data.reason == (
        "gap: a stretch of the feed is missing in the window, and will not come"
    )
