"""Retry-After as servers write it, in seconds after a moment."""

from __future__ import annotations

import pytest

from coordinator.streams.sources.waiting import read_retry_after

NOON_MS = 1_700_049_600_000  # Wed, 15 Nov 2023 12:00:00 UTC


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 15 Nov 2023 12:01:30 GMT", 90.0),
        ("Wed, 15 Nov 2023 12:01:30", 90.0),
        ("Wed, 15 Nov 2023 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 400, 86_400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
    ],
)
def test_a_pause_is_counted_from_the_given_moment(header: str | None, seconds: float | None):
    assert read_retry_after(header, NOON_MS) == seconds
