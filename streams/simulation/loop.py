"""An event loop in virtual time: when nothing is ready, its time jumps to the next timer. Hours of waiting take
moments.

It is only for code that waits by the loop or by the loop's threads (`asyncio.to_thread`), and never by sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
TURNS_MAX = 200_000
"""The most turns of the loop within one virtual second. Some hundreds are usual."""


class RunawayError(Exception):
    """The simulated program does not come to an end."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time begins at 0, and passes only while every task sleeps and no thread of the loop works.

    A thread takes real time. If the clock jumped meanwhile, an hour of waiting could end before a small file is read,
    and only on a busy machine.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        self._now = 0.0
        self._threads_at_work = 0

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread. Virtual time waits for it."""
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._threads_at_work -= 1

    def _run_once(self) -> None:
        idle = not self._ready and not self._threads_at_work  # type: ignore[attr-defined]
        if idle and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class _IdleSelector(selectors.SelectSelector):
    """A selector of nothing: a simulation waits for no socket and no thread."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("a simulation waits for what never comes: no timer is left")
        return []


class SimulationLoop(VirtualTimeLoop):
    """Runs the same program the same way every time: without threads, and with timers of one instant in the order in
    which they were set.

    The loop's heap compares times alone, so the order of two timers of one instant would depend on all other timers.
    Here each timer is a millionth of a microsecond later than the one that was set before it.
    """

    def __init__(self) -> None:
        super().__init__(_IdleSelector())
        self._timers = 0
        self._turns, self._turns_at = 0, -1.0

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer behind every earlier timer of that instant."""
        self._timers += 1
        return super().call_at(when + self._timers * 1e-12, callback, *args, context=context)

    def _run_once(self) -> None:
        super()._run_once()
        self._turns += 1
        if self._now > self._turns_at + 1:
            self._turns, self._turns_at = 0, self._now
        elif self._turns > TURNS_MAX:
            self._turns = 0
            raise RunawayError(f"{TURNS_MAX} turns of the loop, and no second has passed")

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - it has none
        func: Any,
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Run the function at once, in this thread."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            future.set_exception(error)
        return future


def run(
    main: Coroutine[Any, Any, Result], loop_factory: Callable[[], VirtualTimeLoop] = VirtualTimeLoop
) -> Result:
    """Run a coroutine in virtual time, on a loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
