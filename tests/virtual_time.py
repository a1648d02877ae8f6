"""An event loop whose time jumps to the next timer when nothing else is to do: hours of waiting in a moment.

Only for what waits by the loop or by its own threads (`asyncio.to_thread`), never by sockets. `run(main)` gives what
`main` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and passes only when every task sleeps and no thread of the loop is at work.

    A thread takes real time: were the clock to jump meanwhile, an hour of waiting would end before a file of one
    line was read, on a busy machine and not on a quiet one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._threads_at_work = 0

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._threads_at_work -= 1

    def _run_once(self) -> None:
        if not self._ready and self._scheduled and not self._threads_at_work:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time, on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
