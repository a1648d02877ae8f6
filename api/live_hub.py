"""One task for all live listeners: it takes a turn when something was folded, and wakes them.

It runs while somebody listens. Turns come at most every TURN_SECONDS_MIN, and rarer the more is to be sent, so
that what the report process spends on them has a bound: a replay at a thousand times life folds far more often than a
page can show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from coordinator.api.live_state import LiveState, Since
from coordinator.api.side_tasks import SideTask
from coordinator.projections.folding.projector import Projector

LISTENERS_MAX = 1_000
LISTENERS_PER_ADDRESS_MAX = 600
"""Where the process has few file descriptors, half of its connections (`connections.py`)."""
TURN_SECONDS_MIN = 0.25
TURN_SECONDS_PER_LISTENER = 0.002
BYTES_PER_SECOND_MAX = 16_000_000
"""To all listeners together: a thousand rows for five hundred of them would be that several times over."""
BEAT_SECONDS = 15.0
STOP_SECONDS_MAX = 1.0
"""How long a stopping process is not noticed when nothing is folded."""


class TooManyListenersError(Exception):
    """No room for another one."""


class Hub:
    """The listeners of one projector."""

    def __init__(self, projector: Projector, most: int = LISTENERS_MAX) -> None:
        self._projector = projector
        self.most = most
        self._state: LiveState | None = None
        self._by_address: dict[str, int] = {}
        self._next_turn: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.side_task = SideTask("live turns", self._run)
        self.cut_off = 0
        """Listeners dropped because they did not read."""
        self.refused = 0
        """Listeners for whom there was no room."""

    @property
    def listeners(self) -> int:
        """How many there are now."""
        return sum(self._by_address.values())

    @property
    def state(self) -> LiveState:
        """As of the last turn; only while somebody listens."""
        if self._state is None:
            raise RuntimeError("nobody listens")
        return self._state

    @asynccontextmanager
    async def listener(self, address: str) -> AsyncIterator[None]:
        """Count as one for the time of the block. Raises TooManyListenersError."""
        of_address = self._by_address.get(address, 0)
        if self.listeners >= min(LISTENERS_MAX, self.most) or of_address >= LISTENERS_PER_ADDRESS_MAX:
            self.refused += 1
            raise TooManyListenersError
        self._by_address[address] = of_address + 1
        try:
            if self._task is None or self._task.done():
                self._begin()
            yield
        finally:
            left = self._by_address.pop(address) - 1
            if left:
                self._by_address[address] = left
            if not self._by_address and self._task is not None:
                self._task.cancel()
                self._task = self._state = None

    def _begin(self) -> None:
        self._state = LiveState(self._projector.read)
        self._state.turn(self._projector.positions())
        self._next_turn = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self.side_task.supervise())

    def _moved(self) -> bool:
        return self._state is not None and self._projector.positions() != self._state.positions

    async def _run(self) -> None:
        while not self._projector.stopping:
            if await self._projector.wait_until(self._moved, STOP_SECONDS_MAX):
                self.state.turn(self._projector.positions())
                self._wake()
                await asyncio.sleep(self._pause_seconds())

    def _pause_seconds(self) -> float:
        size = len(self.state.changes_since(self.state.number - 1))
        count = self.listeners
        return max(TURN_SECONDS_MIN, TURN_SECONDS_PER_LISTENER * count, count * size / BYTES_PER_SECOND_MAX)

    def _wake(self) -> None:
        before, self._next_turn = self._next_turn, asyncio.get_running_loop().create_future()
        if before is not None and not before.done():
            before.set_result(None)

    def since(self, reached: Mapping[str, int] | None) -> Since:
        """Where a new listener stands."""
        if self._projector.positions() != self.state.positions:
            self.state.turn(self._projector.positions())
            self._wake()
        return self.state.since(reached)

    async def wait_beyond(self, turn: int, leaving: asyncio.Future[object]) -> None:
        """Until there is a turn after this one, the listener leaves, the beat is due, or the turns have ended."""
        if self.state.number > turn or self._next_turn is None or self._task is None:
            return
        waiting: set[asyncio.Future[object]] = {self._next_turn, leaving, self._task}  # type: ignore[arg-type]
        await asyncio.wait(waiting, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    @property
    def ended(self) -> bool:
        """No turn will come any more: the projector stops."""
        return self._task is None or self._task.done()
