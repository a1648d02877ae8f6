"""Whether every input has its finished round: what paces a replay."""

from __future__ import annotations

import asyncio

from coordinator.streams.agents.owning.log_io import LogIO, Reader, records_until
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.events import InputReceived
from coordinator.streams.log.counting import TailCounter

RECORDS_LOOKED_AT = 2000
"""How many records of `predictions` are looked back for how far it has come: one counted decision says it."""


class RoundsFinished:
    """How far `predictions` has decided `inputs`, and how far it must. It paces the replay and decides nothing.

    `predictions` moves its `upto` past an input once its round and all before it are finished, so one offset says all.
    """

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reader: Reader | None = None
        self.follows = False
        """Is it to be told of inputs?"""
        self._counter = TailCounter("predictions")
        self._decided = -1
        self._newest = -1
        """Where the newest input stands in `inputs`."""

    async def start(self) -> None:
        """Find how far `predictions` is, and which inputs stand behind that; once. Raises UnknownEventError."""
        if self.follows:
            return
        self.follows = True
        probe = await self._io.reader("predictions", 0)
        end = await probe.end()
        await probe.close()
        self._reader = await self._io.reader("predictions", max(0, end - RECORDS_LOOKED_AT))
        async for offset, record in records_until(self._reader, end):
            self._take(offset, record)
        inputs, counter = await self._io.reader("inputs", self._decided + 1), TailCounter("inputs")
        try:
            async for offset, record in records_until(inputs, await inputs.end()):
                decision = counter.read(offset, record)
                if decision is not None and any(isinstance(one, InputReceived) for one in decision.events):
                    self.expect(decision.offset)
        finally:
            await inputs.close()

    def expect(self, offset: int) -> None:
        """An input stands at this offset of `inputs`."""
        self._newest = max(offset, self._newest)

    async def wait(self, lost: asyncio.Future[LostOwnershipError]) -> None:
        """Return when the rounds of all inputs are finished. Raises LostOwnershipError, UnknownEventError."""
        if self._reader is None:
            raise RuntimeError
        while self._decided < self._newest:
            if lost.done():
                raise lost.result()
            for offset, record in await self._reader.read():
                self._take(offset, record)

    def _take(self, offset: int, record: bytes) -> None:
        decision = self._counter.read(offset, record)
        if decision is not None and "inputs" in decision.upto:
            self._decided = decision.upto["inputs"][0]

    async def close(self) -> None:
        """End the reader. Nothing waits from here on."""
        self.follows = False
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
