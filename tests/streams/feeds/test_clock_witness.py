"""The witness of time: when the machine's clock is trusted, tested over every way in which it can be wrong."""

from __future__ import annotations

import pytest

from coordinator.streams.feeds.clock_witness import ClockState, Witness, time_fault

NOW = 1_700_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
BOUND = 2 * MINUTE


def witness(*, independent: bool = True, silence_ms: int = MINUTE) -> Witness:
    return Witness(BOUND, independent=independent, silence_ms=silence_ms)


def test_a_right_clock_is_trusted_while_records_come():
    clock = witness()
    for minute in range(600):
        clock.record(NOW + minute * MINUTE, minute * MINUTE)
        for second in (0, 30, 59):
            verdict = clock.look(NOW + minute * MINUTE + second * SECOND, minute * MINUTE + second * SECOND)
            assert (verdict.believed, verdict.state) == (True, ClockState.RIGHT)


def test_a_clock_a_day_ahead_for_four_seconds_is_not_trusted_and_then_time_goes_on():
    clock = witness()
    clock.record(NOW, 0)
    assert clock.look(NOW, 0).believed
    for second in range(1, 5):
        verdict = clock.look(NOW + DAY + second * SECOND, second * SECOND)
        assert (verdict.believed, verdict.state) == (False, ClockState.AHEAD)
        assert verdict.now_ms == NOW
        assert "86401 s ahead of what the sources confirm" in verdict.reason or second > 1
    assert clock.look(NOW + 5 * SECOND, 5 * SECOND).believed


def test_a_clock_ahead_is_reported_although_the_count_since_the_boot_moved_too():
    clock = witness()
    clock.said(NOW, 0)
    assert clock.look(NOW, 0).believed
    assert not clock.look(NOW + DAY, DAY).believed


def test_a_clock_that_is_ahead_from_the_start_is_not_trusted():
    clock = witness()
    assert not clock.look(NOW + DAY, 0).believed
    clock.said(NOW, SECOND)
    verdict = clock.look(NOW + DAY + SECOND, SECOND)
    assert (verdict.believed, verdict.state, verdict.now_ms) == (False, ClockState.AHEAD, NOW)


def test_in_an_outage_time_goes_on_up_to_the_bound_and_then_waits_for_a_source():
    clock = witness()
    clock.said(NOW, 0)
    assert clock.look(NOW + BOUND, BOUND).believed
    verdict = clock.look(NOW + BOUND + SECOND, BOUND + SECOND)
    assert (verdict.believed, verdict.state, verdict.now_ms) == (False, ClockState.UNCONFIRMED, NOW)
    assert not clock.look(NOW + DAY, DAY).believed
    clock.record(NOW + DAY, DAY)
    assert clock.look(NOW + DAY + SECOND, DAY + SECOND).believed


def test_an_outage_after_a_late_record_is_no_clock_that_is_ahead():
    clock = witness()
    late = 4 * SECOND
    clock.record(NOW, late)
    states = [clock.look(NOW + second * SECOND, second * SECOND).state for second in range(4, 200)]
    assert list(dict.fromkeys(states)) == [ClockState.RIGHT, ClockState.UNCONFIRMED]


def test_a_long_stop_is_no_jump_after_a_source_has_told_the_time():
    clock = witness()
    clock.record(NOW)  # the last tick in the log
    assert not clock.look(NOW + 30 * DAY, 0).believed
    clock.said(NOW + 30 * DAY, SECOND)
    assert clock.look(NOW + 30 * DAY + SECOND, SECOND).believed


def test_candles_of_a_day_from_a_source_without_a_clock_are_waited_for_two_days():
    clock = witness(silence_ms=DAY)
    clock.record(NOW, 0)
    assert clock.look(NOW + 2 * DAY, 2 * DAY).believed
    assert not clock.look(NOW + 2 * DAY + SECOND, 2 * DAY + SECOND).believed


def test_candles_of_a_day_do_not_widen_the_bound_if_the_source_tells_the_time():
    clock = witness(silence_ms=DAY)
    for minute in range(60):
        clock.said(NOW + minute * MINUTE, minute * MINUTE)
        assert clock.look(NOW + minute * MINUTE, minute * MINUTE).believed
    assert not clock.look(NOW + HOUR + 3 * MINUTE, HOUR).believed


def test_a_clock_that_is_behind_is_reported_and_stops_nothing():
    clock = witness()
    clock.said(NOW, 0)
    verdict = clock.look(NOW - HOUR, 0)
    assert (verdict.believed, verdict.state) == (True, ClockState.BEHIND)
    assert verdict.reason == "this machine's clock is 3600 s behind what the sources say"
    clock.said(NOW + MINUTE, MINUTE)
    assert clock.look(NOW + MINUTE, MINUTE).state is ClockState.RIGHT


def test_records_ahead_of_the_clock_show_that_it_is_behind():
    clock = witness()
    clock.record(NOW + HOUR, 0)
    assert clock.look(NOW, 0).state is ClockState.BEHIND


def test_a_source_that_tells_a_wrong_time_once_does_not_confirm_it_for_good():
    clock = witness()
    clock.said(NOW + DAY, 0)
    clock.said(NOW, SECOND)
    assert not clock.look(NOW + DAY, SECOND).believed


# --- a source that keeps to our clock ----------------------------------------------------------------------


def test_without_any_witness_only_a_jump_is_noticed():
    clock = witness(independent=False)
    clock.record(NOW, 0)  # made by the clock under test, so it proves nothing
    assert clock.look(NOW + 40 * DAY, 0).believed
    for second in range(1, 5):
        verdict = clock.look(NOW + 41 * DAY + second * SECOND, second * SECOND)
        assert (verdict.believed, verdict.state) == (False, ClockState.AHEAD)
        clock.record(NOW + 41 * DAY, second * SECOND)
    assert clock.look(NOW + 40 * DAY + 5 * SECOND, 5 * SECOND).believed
    assert clock.look(NOW + 39 * DAY, 6 * SECOND).state is ClockState.BEHIND


def test_a_clock_that_is_slewed_by_a_second_a_minute_is_never_a_jump():
    clock = witness(independent=False)
    for minute in range(10_000):
        assert clock.look(NOW + minute * 61 * SECOND, minute * MINUTE).believed


def test_an_ntp_server_is_a_witness_if_the_source_is_none():
    clock = witness(independent=False)
    assert clock.look(NOW, 0).believed
    clock.said(NOW + DAY, SECOND)  # the clock was wrong at the start and is corrected
    assert clock.look(NOW + DAY + SECOND, SECOND).believed


def test_a_replay_never_runs_past_a_jump():
    clock = witness(independent=False)
    assert clock.capped(NOW, 0) == NOW
    assert clock.capped(NOW + DAY, MINUTE) == NOW + MINUTE + BOUND


YEAR_9999 = 253_402_300_799_000


@pytest.mark.parametrize(
    ("ts_event", "at", "why"),
    [
        (-1, NOW, "ts_event -1 is before 1970"),
        (NOW, -MINUTE, "at -60000 is before 1970"),
        (NOW // 1000, NOW, "ts_event 1700000000 is in seconds by its size: times are in milliseconds"),
        (NOW // 1000, NOW // 1000, "ts_event 1700000000 is in seconds"),
        (NOW * 1000, NOW * 1000, "ts_event 1700000000000000 is in microseconds"),
        (NOW, NOW * 1000, "at 1700000000000000 is in microseconds"),
        (NOW * 1_000_000, NOW * 1_000_000, "is in nanoseconds"),
        (YEAR_9999, YEAR_9999, "s in the future"),
        (NOW + DAY + 1, NOW + DAY + 1, "ts_event 1700086400001 is 86400 s in the future"),
        (0, NOW, "ts_event 0 is older than any record"),
        (202_311_142_213, NOW, "older than any record"),  # YYYYMMDDHHMM
        (NOW, NOW - 1, "is after at"),
        (10**30, 10**30, "s in the future"),
        (float(NOW), NOW, "is not a whole number of milliseconds"),
        ("1700000000000", NOW, "is not a whole number of milliseconds"),
        (True, NOW, "is not a whole number"),
    ],
)
def test_an_impossible_time_is_refused_with_the_unit_that_it_seems_to_be_in(ts_event, at, why):
    assert why in (time_fault(ts_event, at, NOW) or "")


@pytest.mark.parametrize(
    ("ts_event", "at"),
    [
        (NOW - MINUTE, NOW),
        (NOW, NOW),
        (NOW + 14 * HOUR, NOW + 14 * HOUR),  # a machine whose zone is wrong
        (852_076_800_000, NOW),  # 1997, which became known now
        (852_076_800_000, 852_076_860_000),
    ],
)
def test_times_of_the_past_and_of_slightly_different_clocks_are_accepted(ts_event, at):
    assert time_fault(ts_event, at, NOW) is None


def test_a_wrong_unit_of_time_is_recognised_in_every_year_of_this_century():
    for year in range(2000, 2100):
        now = NOW + (year - 2023) * 365 * DAY
        for wrong in (now // 1000, now * 1000, now * 1_000_000):
            assert "times are in milliseconds" in (time_fault(wrong, wrong, now) or "")
