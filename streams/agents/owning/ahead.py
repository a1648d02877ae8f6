"""Looking further in a topic than the record in hand: what the time is, and whether newer inputs wait.

Both read their topic to its end on demand, beside Faust's delivery, and hold no position that anything is decided
from: what they said is recorded with the decision that asked.
"""

from __future__ import annotations

import asyncio

from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.events import ClockTicked, InputReceived, InputReceivedData
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import Need


class FeedClock:
    """The time as `feeds` tells it, read to its end on demand."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reading = asyncio.Lock()  # rounds go on side by side, and each asks
        self._reader: Reader | None = None
        self._counter = Counter("feeds")
        self.now = -1

    async def start(self, start: Need) -> None:
        """Begin reading where the inputs' own need stands: the clock there is not later than any input's."""
        if self._reader is None:
            self._reader = await self._io.reader("feeds", start.offset)
            self._counter = Counter("feeds", start)

    async def read(self) -> int:
        """The last tick in `feeds` as of now, in ms."""
        if self._reader is None:
            return self.now
        async with self._reading:
            end = await self._reader.end()
            while batch := await self._reader.read(end):
                for offset, record in batch:
                    decision = self._counter.read(offset, record)
                    if decision is not None:
                        ticks = (e.at for e in decision.events if isinstance(e, ClockTicked))
                        self.now = max([self.now, *ticks])
        return self.now

    def unless_ticked(self, known_at: int) -> None:
        """Before the first tick the time is that of what was seen: a round must not open before 1970."""
        if self.now < 0:
            self.now = known_at

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()


class InputsAhead:
    """The newest input of each subject, as far as `inputs` goes."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reading = asyncio.Lock()  # rounds go on side by side, and each asks
        self._reader: Reader | None = None
        self._counter = Counter("inputs")
        self._newest: dict[str, int] = {}

    def learn(self, decision: Decision) -> None:
        """The decision in hand; the first one says where to read on."""
        if self._reader is None:
            self._counter = Counter("inputs", decision.after())
        self._note(decision)

    async def is_newer(self, than: InputReceivedData) -> bool:
        """Does an input of the same subject with a later point wait? Reads `inputs` to its end."""
        if self._newest.get(than.subject, -1) > than.point:
            return True
        async with self._reading:
            if self._reader is None:
                self._reader = await self._io.reader("inputs", self._counter.next_offset)
            end = await self._reader.end()
            while batch := await self._reader.read(end):
                for offset, record in batch:
                    decision = self._counter.read(offset, record)
                    if decision is not None:
                        self._note(decision)
        return self._newest.get(than.subject, -1) > than.point

    def _note(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, InputReceived):
                data = event.data
                self._newest[data.subject] = max(data.point, self._newest.get(data.subject, -1))

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()
