"""Makes the first tick of models that need one, of records that are read from `feeds` for it.

The first tick may cover a month of records, so the worker does not keep them: it reads them when a model joins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import InputHistory, InputReceivedData, RosterEntry, RoundHistory
from coordinator.streams.inputs.feed_windows import History, Windows, first_tick
from coordinator.streams.inputs.ground_truth import TypedRecords
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.predictions.calls import FirstTick
from coordinator.streams.predictions.first_ticks import FirstTicks

log = structlog.get_logger()


class FeedHistory:
    """The models that lost what earlier ticks told them, and a reader of `feeds` that stays where it is until a model
    needs a first tick.
    """

    def __init__(self, io: LogIO, contracts: Contracts) -> None:
        self._io = io
        self._typed = TypedRecords(contracts)
        self._reader: Reader | None = None
        self._counter = Counter("feeds")
        self._history = History()
        self._restarted: set[str] = set()  # no tick since

    def learn(self, decision: Decision) -> None:
        """Read the decision of `inputs` whose inputs are asked next: it says which records they consist of."""
        self._history.learn(decision)

    def restarted(self, model_ids: Iterable[str]) -> None:
        """Note that these models need a first tick again."""
        self._restarted.update(model_ids)

    async def first_tick(
        self, data: InputReceivedData, roster: list[RosterEntry], following: FirstTicks
    ) -> tuple[RoundHistory | None, FirstTick | None]:
        """(what RoundOpened records of the longer first tick, the tick with the models that get it).

        Each is None if the contract has no longer first tick, the second also if no model needs it. `following` knows
        which models had theirs. Raises what `LogIO` raises.
        """
        if data.history is None:
            return None, None
        restarted = {index for index, entry in enumerate(roster) if entry.model_id in self._restarted}
        self._restarted.difference_update(entry.model_id for entry in roster)
        models = sorted(restarted.union(following.lacking(data.subject, roster)))
        if not models:
            return RoundHistory(subject=data.subject, models=[]), None
        windows = await self._windows(data.history, data.point)
        # In a thread: a month of minutes takes long to encode, and would hold up the event loop.
        history, payload = await asyncio.to_thread(first_tick, data, models, windows, self._typed)
        if history.reason:
            log.warning("first_tick_failed", input_id=data.input_id, reason=history.reason)
        return history, FirstTick(payload, {roster[index].model_id for index in history.models})

    async def _windows(self, history: InputHistory, point: int) -> Windows:
        """The records of an input's first tick, by subject."""
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
