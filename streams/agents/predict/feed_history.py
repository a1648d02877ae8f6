"""Reads from `feeds` the records of a model's first tick, if a model needs one.

The first tick may cover a month of records, so the worker does not keep them: it reads them when a model joins.
"""

from __future__ import annotations

from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until
from coordinator.streams.events import InputHistory
from coordinator.streams.inputs.feed_windows import History, Windows
from coordinator.streams.log.counting import Counter, Decision


class FeedHistory:
    """A reader of `feeds` that stays where it is until somebody needs a first tick."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reader: Reader | None = None
        self._counter = Counter("feeds")
        self._history = History()

    def learn(self, decision: Decision) -> None:
        """Read the decision of `inputs` whose inputs are asked next: it says which records they consist of."""
        self._history.learn(decision)

    async def windows(self, history: InputHistory, point: int) -> Windows:
        """The records of an input's first tick, by subject. Raises what `LogIO` raises."""
        # A reader goes forward only. If the window begins before it, begin again at the start of the window.
        start = self._history.start
        if self._reader is None or self._counter.next_offset < start.offset:
            await self.close()
            self._history.begin()
            self._counter = Counter("feeds", start)
            self._reader = await self._io.reader("feeds", start.offset)
        async for decision in decisions_until(self._reader, self._counter, self._history.end):
            self._history.take(decision)
        return self._history.windows(history, point)

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
