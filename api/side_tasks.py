"""Background tasks, each supervised by itself: one that fails is reported and restarted, and the others continue.

What fails is an alert until it has worked for a while. The pauses between tries double up to PAUSE_SECONDS_MAX.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 1.0, 60.0
MENDED_SECONDS = 60.0
"""A task that has worked for this long since its restart counts as recovered."""
ERROR_CHARS_MAX = 300
_log = structlog.get_logger()
Run = Callable[[], Coroutine[Any, Any, None]]


class SideTask:
    """`error` says why it failed last, and is empty while it works. Each try calls `run` again."""

    def __init__(self, name: str, run: Run, *, mended_seconds: float = MENDED_SECONDS) -> None:
        self.name = name
        self._run = run
        self._mended_seconds = mended_seconds
        self.error = ""
        self.failures = 0

    async def supervise(self) -> None:
        """Run until the task ends by itself or this is cancelled."""
        pause = PAUSE_SECONDS_MIN
        while True:
            task = asyncio.ensure_future(self._run())
            try:
                done, _ = await asyncio.wait((task,), timeout=self._mended_seconds if self.error else None)
                if not done:
                    self.error, pause = "", PAUSE_SECONDS_MIN
                    await asyncio.wait((task,))
            finally:
                task.cancel()
                await asyncio.wait((task,))
            if task.cancelled() or (error := task.exception()) is None:
                self.error = ""
                return
            self.failures += 1
            # The text may hold an address with a key in it: the log, which is the operator's, has the traceback.
            self.error = f"{type(error).__name__}; it is begun again in {pause:g} s, the log has the rest"[
                :ERROR_CHARS_MAX
            ]
            _log.error("side_task_failed", task=self.name, pause_seconds=pause, exc_info=error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
