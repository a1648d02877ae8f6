"""How long this machine has run: seconds that nobody sets, beside the wall clock that anybody may."""

from __future__ import annotations

import time
from pathlib import Path

UPTIME = Path("/proc/uptime")


def since_boot_ms() -> int:
    """Milliseconds since the boot. Linux counts a suspend in; elsewhere it is the monotonic clock.

    Read from the kernel's file and not by `time`: what lies to this process about the time does not reach it.
    """
    try:
        return int(float(UPTIME.read_text().split()[0]) * 1000)
    except (OSError, ValueError, IndexError):
        return time.monotonic_ns() // 1_000_000
