"""Reads a topic beyond the record being decided: what the time is, whether newer inputs wait, what is closed.

Both classes read their topic to its end on demand, beside Faust's delivery. Their positions are no part of a decision:
what they answered is recorded in the decision that asked.
"""

from __future__ import annotations

import asyncio

from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until
from coordinator.streams.events import ClockTicked, InputClosed, InputReceived, InputReceivedData
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import Need


class FeedClock:
    """The time of the last tick in `feeds`, which is read to its end on demand."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reading = asyncio.Lock()  # rounds go on side by side, and each asks
        self._reader: Reader | None = None
        self._counter = Counter("feeds")
        self.now = -1

    async def start(self, start: Need) -> None:
        """Begin to read at the need of the first input: the clock there is not later than the clock of any input."""
        if self._reader is None:
            self._reader = await self._io.reader("feeds", start.offset)
            self._counter = Counter("feeds", start)

    async def read(self) -> int:
        """The last tick in `feeds` as of now, in ms; -1 before the first."""
        if self._reader is None:
            return self.now
        async with self._reading:
            async for decision in decisions_until(self._reader, self._counter, await self._reader.end()):
                ticks = (event.at for event in decision.events if isinstance(event, ClockTicked))
                self.now = max([self.now, *ticks])
        return self.now

    def unless_ticked(self, known_at: int) -> None:
        """Set the time (ms) if there was no tick yet: a round must not open at -1."""
        if self.now < 0:
            self.now = known_at

    async def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            await self._reader.close()


class InputsAhead:
    """The newest input of each subject in `inputs`, and the closes of questions. It is read to its end on demand."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reading = asyncio.Lock()  # rounds go on side by side, and each asks
        self._reader: Reader | None = None
        self._counter = Counter("inputs")
        self._newest: dict[str, int] = {}
        self._delivered = -1
        self._closings: dict[str, tuple[int, int]] = {}
        """Question -> (offset of its close, the time of that in ms), of those that are not decided."""

    def learn(self, decision: Decision) -> None:
        """Take a decision that was delivered; after the first one, reading begins."""
        if self._reader is None:
            self._counter = Counter("inputs", decision.after())
        self._delivered = decision.offset
        self._closings = {
            name: closing for name, closing in self._closings.items() if closing[0] >= decision.offset
        }
        self._note(decision)

    async def is_newer(self, than: InputReceivedData) -> bool:
        """Whether `inputs` holds an input of the same subject with a later point. Reads it to its end."""
        if self._newest.get(than.subject, -1) > than.point:
            return True
        await self._read()
        return self._newest.get(than.subject, -1) > than.point

    async def closings(self, start: Need) -> dict[str, int]:
        """Question -> when it closed (ms), of each close from the newest delivered decision on.

        `start`: from here on, if none was delivered.
        """
        if self._reader is None and self._delivered < 0:
            self._counter = Counter("inputs", start)
        await self._read()
        return {name: at for name, (_, at) in self._closings.items()}

    async def _read(self) -> None:
        async with self._reading:
            if self._reader is None:
                self._reader = await self._io.reader("inputs", self._counter.next_offset)
            async for decision in decisions_until(self._reader, self._counter, await self._reader.end()):
                self._note(decision)

    def _note(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, InputReceived):
                data = event.data
                self._newest[data.subject] = max(data.point, self._newest.get(data.subject, -1))
            elif isinstance(event, InputClosed) and decision.offset >= self._delivered:
                self._closings.setdefault(event.data.input_id, (decision.offset, event.at))

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()
