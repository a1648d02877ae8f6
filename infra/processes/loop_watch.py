"""A process whose event loop hangs ends itself, so that its supervisor restarts it.

Touches the health file every two seconds from the loop (a container's health check and `up` look at its age), and
watches the loop from a thread: a deadlock, a call that never returns. A health check alone restarts nothing.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

BEAT_SECONDS = 2.0
HANGS_SECONDS = 90.0
HANGS_EXIT_CODE = 70


async def watch_loop(health_file: str, hangs_seconds: float = HANGS_SECONDS) -> None:
    """Touch the file until cancelled. Ends the process when the loop has been stuck for `hangs_seconds`."""
    beat = [time.monotonic()]
    over = threading.Event()
    threading.Thread(target=_watch, args=(beat, over, hangs_seconds), daemon=True, name="loop-watch").start()
    try:
        while True:
            beat[0] = time.monotonic()
            if health_file:
                Path(health_file).touch()  # noqa: ASYNC240 - a file in memory, at once
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        over.set()


def _watch(beat: list[float], over: threading.Event, hangs_seconds: float) -> None:
    while not over.wait(min(BEAT_SECONDS, hangs_seconds)):
        stood = time.monotonic() - beat[0]
        if stood > hangs_seconds:
            faulthandler.dump_traceback(
                sys.stderr
            )  # where each thread stands: the only trace that a hang leaves
            sys.stderr.write(f"hangs: the event loop has not come round for {stood:.0f} s; ending\n")
            sys.stderr.flush()
            os._exit(HANGS_EXIT_CODE)
