"""One task for all live listeners: when something was folded it takes a turn, and wakes the listeners.

The task runs while somebody listens. A turn is taken at most every TURN_SECONDS_MIN, and less often the more there is
to send. This bounds what the report process spends on listeners: a fast replay folds far more often than a page can
show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from coordinator.api.live_state import LiveState, OwedChanges
from coordinator.api.side_tasks import SideTask
from coordinator.projections.folding.projector import Projector

LISTENERS_MAX = 1_000
LISTENERS_PER_ADDRESS_MAX = 600
"""In a process with few file descriptors the bound is half of its connections (`connections.py`)."""
TURN_SECONDS_MIN = 0.25
TURN_SECONDS_PER_LISTENER = 0.002
BYTES_PER_SECOND_MAX = 16_000_000
"""To all listeners together. A thousand rows for five hundred listeners are several times as much."""
BEAT_SECONDS = 15.0
STOP_SECONDS_MAX = 1.0
"""When nothing is folded, the hub notices within this time that the process stops."""


class TooManyListenersError(Exception):
    """There are as many listeners as are allowed, in all or from one address."""


class Hub:
    """The listeners of one projector."""

    def __init__(self, projector: Projector, listeners_max: int = LISTENERS_MAX) -> None:
        self._projector = projector
        self.listeners_max = listeners_max
        self._state: LiveState | None = None
        self._by_address: dict[str, int] = {}
        self._next_turn: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.side_task = SideTask("live turns", self._run)
        self.cut_off = 0
        """How many listeners were disconnected because they did not read."""
        self.refused = 0
        """How many listeners were refused because there were too many."""

    @property
    def listeners(self) -> int:
        """How many listeners there are now."""
        return sum(self._by_address.values())

    @property
    def state(self) -> LiveState:
        """The state as of the last turn. Raises RuntimeError while nobody listens."""
        if self._state is None:
            raise RuntimeError("nobody listens")
        return self._state

    @asynccontextmanager
    async def listener(self, address: str) -> AsyncIterator[None]:
        """Be counted as a listener during the block. Raises TooManyListenersError."""
        of_address = self._by_address.get(address, 0)
        if (
            self.listeners >= min(LISTENERS_MAX, self.listeners_max)
            or of_address >= LISTENERS_PER_ADDRESS_MAX
        ):
            self.refused += 1
            raise TooManyListenersError
        self._by_address[address] = of_address + 1
        try:
            if self._task is None or self._task.done():
                self._begin()
            yield
        finally:
            remaining = self._by_address.pop(address) - 1
            if remaining:
                self._by_address[address] = remaining
            if not self._by_address and self._task is not None:
                self._task.cancel()
                self._task = self._state = None

    def _begin(self) -> None:
        self._state = LiveState(self._projector.read)
        self._state.turn(self._projector.positions())
        self._next_turn = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self.side_task.supervise())

    def _has_news(self) -> bool:
        return self._state is not None and self._projector.positions() != self._state.positions

    async def _run(self) -> None:
        while not self._projector.stopping:
            if await self._projector.wait_until(self._has_news, STOP_SECONDS_MAX):
                self.state.turn(self._projector.positions())
                self._wake()
                await asyncio.sleep(self._pause_seconds())

    def _pause_seconds(self) -> float:
        size = len(self.state.changes_since(self.state.number - 1))
        count = self.listeners
        return max(TURN_SECONDS_MIN, TURN_SECONDS_PER_LISTENER * count, count * size / BYTES_PER_SECOND_MAX)

    def _wake(self) -> None:
        this_turn, self._next_turn = self._next_turn, asyncio.get_running_loop().create_future()
        if this_turn is not None and not this_turn.done():
            this_turn.set_result(None)

    def since(self, reached: Mapping[str, int] | None) -> OwedChanges:
        """What a new listener is owed that has everything up to `reached`; None: it has nothing yet."""
        if self._projector.positions() != self.state.positions:
            self.state.turn(self._projector.positions())
            self._wake()
        return self.state.since(reached)

    async def wait_beyond(self, turn: int, leaving: asyncio.Future[object]) -> None:
        """Return when there is a later turn, the listener leaves, a beat is due, or there will be no more turns."""
        if self.state.number > turn or self._next_turn is None or self._task is None:
            return
        waiting: set[asyncio.Future[object]] = {self._next_turn, leaving, self._task}  # type: ignore[arg-type]
        await asyncio.wait(waiting, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    @property
    def ended(self) -> bool:
        """Whether the projector has stopped, so that there will be no more turns."""
        return self._task is None or self._task.done()
