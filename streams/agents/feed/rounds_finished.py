"""Waits until every input has its finished round: this paces a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until, reader_near_end
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.events import AnyEvent, InputReceived
from coordinator.streams.log.counting import Decision, TailCounter
from coordinator.streams.log.envelope import Position
from coordinator.streams.log.stage import NOTHING_DECIDED

RECORDS_LOOKED_AT = 2000
"""How many of the last records of `predictions` are read to find how far it is: one counted decision shows it."""


def newest_input(events: Sequence[AnyEvent]) -> int | None:
    """The index of the last InputReceived among the events of one decision; None if there is none."""
    return max((i for i, event in enumerate(events) if isinstance(event, InputReceived)), default=None)


class RoundsFinished:
    """How far `predictions` has decided `inputs`, and how far it must. Paces the replay; decides nothing.

    `predictions` moves its `upto` past an input when the round of this input and all earlier rounds are finished. So
    one position is enough. It is a position and not an offset, because one decision holds the inputs of several
    subjects.
    """

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reader: Reader | None = None
        self.follows = False
        """Whether it must be told of new inputs (`expect`)."""
        self._counter = TailCounter("predictions")
        self._decided = NOTHING_DECIDED
        self._newest = NOTHING_DECIDED
        """The position of the newest input in `inputs`."""

    async def start(self) -> None:
        """Find how far `predictions` is, and the newest input. Later calls do nothing. Raises UnknownEventError."""
        if self.follows:
            return
        self.follows = True
        self._reader = reader = await reader_near_end(self._io, "predictions", RECORDS_LOOKED_AT)
        async for decision in decisions_until(reader, self._counter, reader.first_end):
            self._take(decision)
        # Begin a little before `upto`: the decision that it is in may begin some records earlier.
        first = max(0, self._decided[0] - RECORDS_LOOKED_AT)
        inputs, counter = await self._io.reader("inputs", first), TailCounter("inputs")
        try:
            async for decision in decisions_until(inputs, counter, inputs.first_end):
                if (index := newest_input(decision.events)) is not None:
                    self.expect((decision.offset, index))
        finally:
            await inputs.close()

    def expect(self, position: Position) -> None:
        """Note that there is an input at this position of `inputs`."""
        self._newest = max(position, self._newest)

    async def wait(self, lost: asyncio.Future[LostOwnershipError]) -> None:
        """Return when the rounds of all inputs are finished. Raises LostOwnershipError, UnknownEventError."""
        if self._reader is None:
            raise RuntimeError
        while self._decided < self._newest:
            if lost.done():
                raise lost.result()
            for offset, record in await self._reader.read():
                if (decision := self._counter.read(offset, record)) is not None:
                    self._take(decision)

    def _take(self, decision: Decision) -> None:
        self._decided = decision.upto.get("inputs", self._decided)

    async def close(self) -> None:
        """Close the reader. Nothing waits afterwards."""
        self.follows = False
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
