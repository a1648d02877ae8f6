"""One owner's time with one stage: claim, resume, then follow the sources until it is lost.

Resuming: the own topic gives the stage's memory; the sources are folded from the last counted `need`, and what
is at or before `upto` is not decided again; then the same function goes on to the end of the sources as of the
claim. Only then is the gate opened to Faust's delivery of the driving topic. The other sources are
tailed by plain readers: a stage's ownership must hang on one partition, not on two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog
from aiokafka.errors import KafkaError

from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic, pump
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.log.stage import AnyStage

log = structlog.get_logger()

OnGarbage = Callable[[str, int, bytes, str], Awaitable[None]]
"""(topic, offset, bytes, reason): returns when the piece is set aside for good."""


class Tenure:
    """A stage with its claim. `start` resumes; `deliver` takes the driving topic's records afterwards."""

    def __init__(self, io: LogIO, stage: AnyStage, owner: str, on_garbage: OnGarbage | None = None) -> None:
        self.stage = stage
        self.owned = OwnedTopic(io, stage.topic, owner)
        self._io = io
        self._on_garbage = on_garbage
        self._counters: dict[str, Counter | PlainCounter] = {}
        self._readers: dict[str, Reader] = {}
        self._tails: list[asyncio.Task[None]] = []
        self._lock = asyncio.Lock()
        self._driver = stage.drivers[0]

    async def start(self) -> None:
        """Claim and resume. Raises LostOwnershipError, TruncatedTopicError, UnknownEventError."""
        await self.owned.claim(self.stage.remember, self.stage)
        ends: dict[str, int] = {}
        for source in self.stage.sources:
            need = self.stage.need[source]
            self._readers[source] = reader = await self._io.reader(source, need.offset)
            self._counters[source] = counter_for(source, need)
            ends[source] = await reader.end()
        await self.resumed_memory()
        await self._catch_up(ends)
        for source in self.stage.sources:
            if source != self._driver:
                self._tails.append(asyncio.create_task(self._tail(source), name=f"tail-{source}"))
        await self._readers[self._driver].close()  # Faust delivers it from here on
        log.info("stage_resumed", stage=self.stage.topic, epoch=self.owned.epoch, ends=ends)

    async def resumed_memory(self) -> None:
        """A hook: the own memory is folded, the sources are not."""

    async def claim_also(
        self, other: OwnedTopic, remember: Callable[[Decision], None], stage: AnyStage | None = None
    ) -> None:
        """Claim a second topic; losing either is losing both. Raises LostOwnershipError."""
        if self.owned.lost.done():  # then the second topic belongs to the first one's new owner
            raise self.owned.lost.result()
        await other.claim(remember, stage)
        other.lost.add_done_callback(lambda lost: self.owned.give_up(lost.result()))

    async def _catch_up(self, ends: dict[str, int]) -> None:
        """Fold every source to its end as of the claim, deciding as it goes.

        A stage with one driving topic reads what it waits for: its waiting makes the order unimportant, and what
        is read too early is held in memory.
        With two driving topics the order is part of what it decides. All that is decided is folded first, of
        both, or a command decided long ago would be missing where a snapshot is decided anew. Then come the
        later drivers (commands): what an operator said while nobody listened bears on what is built now.
        """
        drivers = self.stage.drivers
        if len(drivers) > 1:
            upto = self.stage.upto
            for source in drivers:
                await self._read_to({source: min(ends[source], upto[source][0] + 1)}, self._fold)
            await pump(self.stage, self.owned)
            for source in reversed(drivers[1:]):
                await self._read_to({source: ends[source]}, self.process)
        await self._read_to(ends, self.process)

    async def _read_to(self, ends: dict[str, int], handle: Callable[[Decision], Awaitable[None]]) -> None:
        left = dict(ends)
        while left:
            for source in self._due(left):
                batch = await self._readers[source].read(left[source])
                if not batch:
                    del left[source]
                for offset, record in batch:
                    await self._take(source, offset, record, handle)

    def _due(self, left: Collection[str]) -> list[str]:
        """Which of these sources to read next: the driver, or the others while its oldest event waits for them."""
        others = [source for source in left if source not in self.stage.drivers]
        drivers = [source for source in left if source in self.stage.drivers]
        return (others or drivers) if self.stage.waits() else (drivers or others)

    async def _fold(self, decision: Decision) -> None:
        self.stage.absorb(decision)

    async def _take(
        self,
        source: str,
        offset: int,
        record: bytes,
        handle: Callable[[Decision], Awaitable[None]] | None = None,
    ) -> None:
        async with self._lock:
            if self.owned.lost.done():
                raise self.owned.lost.result()
            counter = self._counters[source]
            if offset < counter.next_offset:
                return
            decision = counter.read(offset, record)
            if decision is not None:
                await (handle or self.process)(decision)
            elif isinstance(counter, PlainCounter) and counter.garbage and self._on_garbage is not None:
                await self._on_garbage(source, offset, record, counter.garbage)

    async def process(self, decision: Decision) -> None:
        """Fold one counted decision and send what it makes due."""
        self.stage.absorb(decision)
        await pump(self.stage, self.owned)

    async def _tail(self, source: str) -> None:
        try:
            while True:
                for offset, record in await self._readers[source].read():
                    await self._take(source, offset, record)
        except LostOwnershipError as why:
            self.owned.give_up(why)

    async def deliver(self, offset: int, record: bytes) -> None:
        """Take one record of the driving topic. A hole before it is read directly: Faust may start later than we."""
        counter = self._counters[self._driver]
        if offset > counter.next_offset:
            reader = await self._io.reader(self._driver, counter.next_offset)
            try:
                while batch := await reader.read(offset):
                    for missed, missed_record in batch:
                        await self._take(self._driver, missed, missed_record)
            finally:
                await reader.close()
        await self._take(self._driver, offset, record)

    @property
    def position(self) -> int:
        """The next offset of the driving topic that the stage waits for."""
        return self._counters[self._driver].next_offset

    async def behind(self) -> bool:
        """Does the driving topic hold records that the stage has not seen? False while nobody can say."""
        try:
            return await self._readers[self._driver].end() > self.position
        except (KafkaError, WorldError, OSError):
            return False

    async def look_ahead(self) -> None:
        """Read the driving topic's next records directly. Raises CorruptTopicError for one that Kafka's consumer, which
        says nothing, cannot get past.
        """
        reader = await self._io.reader(self._driver, self.position)
        try:
            await reader.read()
        finally:
            await reader.close()

    def tails_failed(self) -> BaseException | None:
        """The exception of a tail that died of our own bug, if any."""
        for task in self._tails:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def close(self) -> None:
        """Stop the tails, the readers and the claim's watch; nothing is sent from here on."""
        self.owned.give_up(LostOwnershipError("this tenure has ended", foreign=False))
        for task in self._tails:
            task.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        for reader in self._readers.values():
            await reader.close()
        await self.owned.close()
