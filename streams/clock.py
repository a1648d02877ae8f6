"""The wall clock, read in one place. The core is handed the time and may not import this (`tests/test_tidy.py`)."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """The time now, in ms since 1970, UTC. It may step; an interval is measured with `time.monotonic`."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """A time in ms that never jumps, to measure durations. It is unrelated to the date."""
    return time.monotonic_ns() // 1_000_000
