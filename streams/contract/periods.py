"""Checkpoint periods by the calendar: weeks that begin on a Monday noon in Zurich, a warm-up without pay, an end.

    CrunchContract(
        calendar=Calendar(weekday="monday", hour=12, zone="Europe/Zurich", unpaid_until=datetime(2026, 6, 1))
    )

One function of time gives the period, for every stage, read model and audit. The rules of a zone come from the package
`tzdata` and never from the system, so that every machine has the same periods. Pure.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from io import BytesIO
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.streams.durations import EPOCH, FAR_MS
from coordinator.streams.events import CalendarTerms

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_LOOKED_AT_FROM_MS, _LOOKED_AT_UNTIL_MS = 1_767_225_600_000, 1_830_297_600_000  # 2026 and 2027


class Calendar(BaseModel):
    """When checkpoint periods begin, instead of what CHECKPOINT_INTERVAL_SECONDS and CHECKPOINT_OFFSET_SECONDS say.

    A time that the zone's clock skips in spring is as far behind the skip; of one that comes twice in autumn it is the
    first. The first period begins where the contract begins to hold, and is shorter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] | None = (
        "monday"
    )
    """The day on which a week begins; None: each day is a period."""
    hour: int = Field(default=0, ge=0, le=23)
    """The hour at which a period begins, in the zone: 0 to 23."""
    minute: int = Field(default=0, ge=0, le=59)
    """The minute of that hour."""
    zone: str = "UTC"
    """A name of the IANA database, like Europe/Zurich: hour and minute are of its clock."""
    unpaid_until: datetime | None = None
    """Periods that begin before this are the warm-up: they are ranked, and their checkpoints are withheld. Without an
    offset it is of the zone's clock."""
    ends_at: datetime | None = None
    """The last period ends here, shorter than the others; later ones have no checkpoint. Without an offset as above."""

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        if zone not in _zones():
            raise ValueError(f"{zone!r} is no time zone of the IANA database, like UTC or Europe/Zurich")
        return zone

    @field_validator("unpaid_until", "ends_at")
    @classmethod
    def _is_of_the_plain_kind(cls, moment: datetime | None) -> datetime | None:
        """A subclass of datetime says no more, and has no plain form that a contract's hash could be over."""
        return None if moment is None else datetime.fromisoformat(moment.isoformat())

    def terms(self) -> CalendarTerms:
        """As the log has it."""
        return CalendarTerms(
            zone=self.zone,
            weekday=None if self.weekday is None else WEEKDAYS.index(self.weekday),
            minute=60 * self.hour + self.minute,
            unpaid_until=self._ms(self.unpaid_until, 0),
            ends_at=self._ms(self.ends_at, FAR_MS),
        )

    def _ms(self, moment: datetime | None, without: int) -> int:
        if moment is None:
            return without
        return _instant(moment if moment.tzinfo else moment.replace(tzinfo=_zone(self.zone)))


@lru_cache(maxsize=4096)
def calendar_period(calendar: CalendarTerms, time_ms: int) -> tuple[int, int]:
    """The period [start, end) in ms of a time. The last period ends where the calendar ends."""
    # Begin with the local day of the time, and correct it: around a change of the clock, or before the hour at which
    # periods begin, the period is the one before or after.
    day = datetime.fromtimestamp(time_ms / 1000, tz=_zone(calendar.zone)).date()
    step = timedelta(days=1 if calendar.weekday is None else 7)
    if calendar.weekday is not None:
        day -= timedelta(days=(day.weekday() - calendar.weekday) % 7)
    while _begins(calendar, day) > time_ms:
        day -= step
    while (end := _begins(calendar, day + step)) <= time_ms:
        day += step
    start = _begins(calendar, day)
    return (
        (max(start, calendar.ends_at), end)
        if time_ms >= calendar.ends_at
        else (start, min(end, calendar.ends_at))
    )


def unpaid_reason(calendar: CalendarTerms | None, start_ms: int) -> str:
    """Why a period that begins at this time is not paid; "" if it is paid."""
    if calendar is None or start_ms >= calendar.unpaid_until:
        return ""
    until = (EPOCH + timedelta(milliseconds=calendar.unpaid_until)).strftime("%Y-%m-%d %H:%M UTC")
    return f"the period begins in the warm-up, which is not paid (calendar.unpaid_until, {until})"


def calendar_fault(calendar: CalendarTerms, snapshot_interval_ms: int) -> str:
    """Why these periods are not possible; "" if they are. A checkpoint is made of whole snapshot periods.

    The periods of two years are checked, which have every change of a zone's clock.
    """
    boundaries = {"ends_at": calendar.ends_at % FAR_MS, "unpaid_until": calendar.unpaid_until}
    wrong = next((name for name, at in boundaries.items() if at % snapshot_interval_ms), "")
    if wrong:
        return f"{wrong} is no multiple of the snapshot interval"
    endless = replace(calendar, ends_at=FAR_MS)
    time = _LOOKED_AT_FROM_MS
    while time < _LOOKED_AT_UNTIL_MS:
        _, time = calendar_period(endless, time)
        if time % snapshot_interval_ms:
            at = (EPOCH + timedelta(milliseconds=time)).strftime("%Y-%m-%d %H:%M UTC")
            return f"a period begins at {at}, which is no multiple of the snapshot interval"
    return ""


def _begins(calendar: CalendarTerms, day: date) -> int:
    hour, minute = divmod(calendar.minute, 60)
    return _instant(datetime(day.year, day.month, day.day, hour, minute, tzinfo=_zone(calendar.zone)))


def _instant(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


@cache
def _zones() -> frozenset[str]:
    return frozenset((resources.files("tzdata") / "zones").read_bytes().decode().split())


@cache
def _zone(name: str) -> ZoneInfo:
    place = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    return ZoneInfo.from_file(BytesIO(place.read_bytes()), key=name)
