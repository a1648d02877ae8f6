"""The clocks of the feed worker: the wall clock, which anybody may set, and a count since boot, which nobody can."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from coordinator.streams.clock import wall_ms
from coordinator.streams.feeds.clock_witness import Witness

UPTIME = Path("/proc/uptime")


class Clocks(msgspec.Struct, frozen=True):
    """`wall_ms` may be wrong, and `uptime_ms` only counts up; both are in ms. `witness` judges the wall clock by the
    times that sources report.

    `ask_time` asks a source's own clock or an NTP server for the time in ms, every `ask_seconds`; None: nobody is
    asked.
    """

    wall_ms: Callable[[], int]
    uptime_ms: Callable[[], int]
    witness: Witness
    ask_time: Callable[[], Awaitable[int]] | None
    ask_seconds: float


def since_boot_ms() -> int:
    """Milliseconds since boot. On Linux a suspend is included; elsewhere it is the monotonic clock.

    It is read from the kernel's file and not with `time`: a library that fakes the time for this process does not
    change that file.
    """
    try:
        return int(float(UPTIME.read_text().split()[0]) * 1000)
    except (OSError, ValueError, IndexError):
        return time.monotonic_ns() // 1_000_000


class MachineTime(NamedTuple):
    """How the time is read: from this machine's two clocks, in ms, and from an NTP server that is asked by its address,
    if one is.
    """

    wall_ms: Callable[[], int] = wall_ms
    uptime_ms: Callable[[], int] = since_boot_ms
    ntp: Callable[[str], Awaitable[int]] | None = None


THIS_MACHINE = MachineTime()
