"""Checkpoint periods by the calendar are a function of time alone, the same on every machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.streams.build import HASH, configured

from coordinator.infra.contracts.loading import contract_hash
from coordinator.streams.contract import Calendar, CrunchContract
from coordinator.streams.contract.periods import calendar_period, unpaid_reason
from coordinator.streams.contract.terms import TermsInForce, make_terms
from coordinator.streams.events import CalendarTerms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

DAY_MS = 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")


ZURICH = Calendar(weekday="monday", hour=12, zone="Europe/Zurich")
PERIODS = {
    # calendar, a time, the period that contains it (UTC)
    "a week from Monday noon": (Calendar(hour=12), "2026-06-10T09:00", ("2026-06-08 12:00", "2026-06-15 12:00")),
    "its first instant": (Calendar(hour=12), "2026-06-08T12:00", ("2026-06-08 12:00", "2026-06-15 12:00")),
    "the instant before": (Calendar(hour=12), "2026-06-08T11:59:59.999", ("2026-06-01 12:00", "2026-06-08 12:00")),
    "noon of the zone in summer": (ZURICH, "2026-06-10T09:00", ("2026-06-08 10:00", "2026-06-15 10:00")),
    "and in winter": (ZURICH, "2026-12-08T09:00", ("2026-12-07 11:00", "2026-12-14 11:00")),
    "a week in spring is an hour shorter": (ZURICH, "2026-03-28T00:00", ("2026-03-23 11:00", "2026-03-30 10:00")),
    "a week in autumn is an hour longer": (ZURICH, "2026-10-24T00:00", ("2026-10-19 10:00", "2026-10-26 11:00")),
    "another weekday": (Calendar(weekday="sunday", hour=22), "2026-06-10T00:00", ("2026-06-07 22:00", "2026-06-14 22:00")),
    "days": (Calendar(weekday=None, hour=6), "2026-06-10T05:59", ("2026-06-09 06:00", "2026-06-10 06:00")),
    "a date of the zone that is not UTC's": (
        Calendar(weekday=None, zone="Pacific/Auckland"), "2026-06-10T13:00", ("2026-06-10 12:00", "2026-06-11 12:00")
    ),
    "an hour that spring skips": (
        Calendar(weekday="sunday", hour=2, minute=30, zone="Europe/Zurich"),
        "2026-03-29T12:00", ("2026-03-29 01:30", "2026-04-05 00:30"),
    ),
    "an hour that comes twice in autumn": (
        Calendar(weekday="sunday", hour=2, minute=30, zone="Europe/Zurich"),
        "2026-10-25T12:00", ("2026-10-25 00:30", "2026-11-01 01:30"),
    ),
    "the last period is shorter": (
        Calendar(hour=12, ends_at=datetime.fromisoformat("2026-06-11")), "2026-06-10T00:00", ("2026-06-08 12:00", "2026-06-11 00:00")
    ),
    "time goes on after the end": (
        Calendar(hour=12, ends_at=datetime.fromisoformat("2026-06-11")), "2026-06-11T00:00", ("2026-06-11 00:00", "2026-06-15 12:00")
    ),
    "the end by the zone's clock": (
        Calendar(hour=12, zone="Europe/Zurich", ends_at=datetime.fromisoformat("2026-06-11")),
        "2026-06-10T00:00", ("2026-06-08 10:00", "2026-06-10 22:00"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("calendar", "time", "period"), PERIODS.values(), ids=PERIODS)
def test_a_time_is_in_the_period_of_the_table(calendar, time, period):
    assert tuple(map(text, calendar_period(calendar.terms(), ms(time)))) == period


some_calendars = st.builds(
    Calendar,
    weekday=st.sampled_from(["monday", "thursday", "sunday", None]),
    hour=st.integers(0, 23),
    minute=st.sampled_from([0, 30]),
    zone=st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
    ends_at=st.none()
    | st.datetimes(datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2028-01-01")),
).map(Calendar.terms)


@property_of(some_calendars, st.integers(ms("2025-01-01"), ms("2030-01-01")))
def test_periods_have_no_gap_and_each_time_is_in_one_period(calendar: CalendarTerms, time: int) -> None:
    start, end = calendar_period(calendar, time)
    assert start <= time < end
    assert calendar_period(calendar, start) == (start, end) == calendar_period(calendar, end - 1)
    assert calendar_period(calendar, end)[0] == end
    longest = timedelta(days=1 if calendar.weekday is None else 7, hours=1)
    assert end - start <= longest / timedelta(milliseconds=1)


def test_a_change_of_terms_cuts_a_period_of_the_calendar():
    terms = TermsInForce()
    calendar = Calendar(hour=12).terms()
    terms.add(configured(calendar=calendar, effective_from=ms("2026-06-09")))
    terms.add(configured(calendar=calendar, effective_from=ms("2026-06-12"), contract_hash="other"))
    assert terms.checkpoint_period(ms("2026-06-10")) == (ms("2026-06-09"), ms("2026-06-12"))
    assert terms.checkpoint_period(ms("2026-06-13")) == (ms("2026-06-12"), ms("2026-06-15T12:00"))
    assert terms.ends_checkpoint_period(ms("2026-06-15T11:00"), ms("2026-06-15T12:00"))
    assert not terms.ends_checkpoint_period(ms("2026-06-15T10:00"), ms("2026-06-15T11:00"))


def test_the_warm_up_covers_periods_that_begin_before_its_end():
    calendar = Calendar(unpaid_until=datetime.fromisoformat("2026-06-08")).terms()
    assert unpaid_reason(calendar, ms("2026-06-07")) == (
        "the period begins in the warm-up, which is not paid (calendar.unpaid_until, 2026-06-08 00:00 UTC)"
    )
    assert unpaid_reason(calendar, ms("2026-06-08")) == unpaid_reason(None, 0) == ""


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "zones"])
def test_an_unknown_time_zone_is_refused(zone):
    with pytest.raises(ValidationError, match="no time zone"):
        Calendar(zone=zone)


def calendar_terms(**fields: object) -> object:
    settings = Settings(snapshot_interval_seconds=3600)
    return make_terms(CrunchContract(calendar=Calendar(**fields)), HASH, settings, 0).calendar


def test_the_calendar_is_recorded_in_the_terms():
    ends_at = datetime(2026, 6, 11, tzinfo=UTC)
    assert calendar_terms(weekday="tuesday", hour=9, ends_at=ends_at) == CalendarTerms(
        zone="UTC", weekday=1, minute=540, unpaid_until=0, ends_at=ms("2026-06-11")
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minute": 30}, "a period begins at 2026-01-05 00:30 UTC"),
        ({"zone": "Asia/Kolkata"}, "a period begins at 2026-01-04 18:30 UTC"),
        ({"ends_at": datetime.fromisoformat("2026-06-01T00:10")}, "ends_at is no multiple"),
        ({"unpaid_until": datetime.fromisoformat("2026-06-01T00:10")}, "unpaid_until is no multiple"),
    ],
)
def test_a_checkpoint_period_consists_of_whole_snapshots(fields, words):
    with pytest.raises(OperatorError, match=words):
        calendar_terms(**fields)


def test_a_datetime_of_another_class_makes_the_same_contract():
    """`contract check` runs a contract with a shifted clock, in which datetime is a class of its own."""

    class Moment(datetime):
        pass

    hashes = {
        contract_hash(CrunchContract(calendar=Calendar(unpaid_until=kind.fromisoformat("2026-06-01"))))
        for kind in (datetime, Moment)
    }
    assert len(hashes) == 1
