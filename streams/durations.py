"""Lengths of time that have a name, the ends of time, and how a time is shown: each is defined here only. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
YEAR_MS = 366 * DAY_MS
"""The longest year: bounds count in it."""
HOUR_SECONDS, DAY_SECONDS, YEAR_SECONDS = HOUR_MS // 1000, DAY_MS // 1000, YEAR_MS // 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The time from which every time in ms counts."""
FAR_MS = 1 << 62
"""Later than every time that can occur: the end of what has no end."""


def moment_text(time_ms: int) -> str:
    """A time in UTC, as every text for the operator shows it; the number if it is outside the calendar."""
    try:
        moment = EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return f"{time_ms} ms"
    return moment.replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(".000") + "Z"
