"""Lengths of time that have a name, and the ends of time: each is defined here and nowhere else. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

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
