"""SIGTERM and SIGINT ask a process to end; one whose end takes too long is ended.

A bound within the event loop does not hold: Faust's services swallow a cancellation and continue. At their end they
block the loop for a thread, and a consumer that leaves its group first waits until the group has settled, which a
member that stands still puts off for a session. So the bound is a timer in a thread of its own. What is missed then (a
commit, the farewell to a group) a crash misses too, and the log does not need it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading

import structlog

END_SECONDS_MAX = 6.0

_log = structlog.get_logger()


def end_when_told(stop: asyncio.Event) -> None:
    """Set `stop` at SIGTERM or SIGINT. A process that still lives END_SECONDS_MAX later exits with code 0, as told."""

    def told() -> None:
        stop.set()
        timer = threading.Timer(END_SECONDS_MAX, _end)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)


def _end() -> None:
    _log.warning("end_forced", seconds=END_SECONDS_MAX)
    faulthandler.dump_traceback(sys.stderr)  # where each thread stands
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
