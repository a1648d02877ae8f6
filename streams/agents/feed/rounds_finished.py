"""Which rounds are finished: what paces a replay."""

from __future__ import annotations

import asyncio

from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.events import RoundAnswered
from coordinator.streams.log.envelope import decode_append, decode_events, record_named

ANSWERS_LOOKED_AT = 2000
"""How many records of `predictions` a restarted replay looks back for rounds that are finished already."""


class RoundsFinished:
    """Which inputs have a finished round, as the tail of `predictions` tells.

    It paces the replay and decides nothing. It knows epochs from the claims that it sees, so that a replaced
    owner's late append does not count here either.
    """

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reader: Reader | None = None
        self._epoch = 0
        self._finished: set[str] = set()

    async def start(self) -> None:
        """Look back, then stand at the end."""
        probe = await self._io.reader("predictions", 0)
        end = await probe.end()
        await probe.close()
        self._reader = await self._io.reader("predictions", max(0, end - ANSWERS_LOOKED_AT))

    async def wait(self, input_ids: set[str], lost: asyncio.Future[LostOwnershipError]) -> None:
        """Return when every one of these inputs is answered. Raises LostOwnershipError."""
        if self._reader is None:
            raise RuntimeError
        while not input_ids <= self._finished:
            if lost.done():
                raise lost.result()
            for offset, record in await self._reader.read():
                with record_named("predictions", offset):
                    self._take(record)
        self._finished -= input_ids

    def _take(self, record: bytes) -> None:
        append = decode_append(record)
        if append is None:
            return
        if append.claim:
            self._epoch = max(self._epoch, append.epoch)
        elif append.epoch >= self._epoch and b'"RoundAnswered"' in bytes(append.events):
            self._finished.update(
                event.data.input_id
                for event in decode_events(append.events)
                if isinstance(event, RoundAnswered)
            )

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()
