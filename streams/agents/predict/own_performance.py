"""Reads from `snapshots` how the models performed in the last closed period, for contracts that tell them."""

from __future__ import annotations

import asyncio

from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until, reader_near_end
from coordinator.streams.log.counting import TailCounter
from coordinator.streams.predictions.performance import LastPeriod

RECORDS_LOOKED_AT = 200
"""How many records before the end the reader begins. Nearly every record of `snapshots` closes a period, so the last
closed one is among them."""


class OwnPerformance:
    """A reader of `snapshots` that reads to its end on demand."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reading = asyncio.Lock()
        self._reader: Reader | None = None
        self._counter = TailCounter("snapshots")
        self._last = LastPeriod()

    async def read(self) -> LastPeriod:
        """The last closed period. Raises what `LogIO` raises, and UnknownEventError."""
        async with self._reading:
            if self._reader is None:
                self._reader = await reader_near_end(self._io, "snapshots", RECORDS_LOOKED_AT)
            async for decision in decisions_until(self._reader, self._counter, await self._reader.end()):
                self._last.take(decision.seq, decision.events)
        return self._last

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()
