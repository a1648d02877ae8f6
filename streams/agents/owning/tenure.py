"""A tenure: one owner claims a stage, resumes it, and then follows its sources until the ownership is lost.

To resume, the stage's memory is folded from its own topic. Then the sources are folded from the last counted `need`,
without deciding again what is at or before `upto`, and the same function decides up to the end that the sources had at
the claim. Only then does the gate open for Faust's delivery of the driving topic. The other sources are followed by
plain readers: the ownership of a stage must depend on one partition, not on two.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection

import structlog
from aiokafka.errors import KafkaError

from coordinator.infra.together import together
from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic, pump
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.log.stage import AnyStage

log = structlog.get_logger()

OnGarbage = Callable[[str, int, bytes, str], Awaitable[None]]
"""(topic, offset, bytes, reason): returns when the dead letter about the record is durable."""


def _told(source: str, record: bytes) -> bytes:
    """What a dead letter shows of a record that is no event. One of `commands` may hold answers, which nobody may see
    before the close.
    """
    if source != "commands":
        return record
    return f"a record of {len(record)} bytes with the SHA-256 {hashlib.sha256(record).hexdigest()}".encode()


class Tenure:
    """A stage with its claim. `start` claims and resumes; afterwards `deliver` takes the driving topic's records."""

    def __init__(
        self,
        io: LogIO,
        stage: AnyStage,
        owner: str,
        on_garbage: OnGarbage | None = None,
        *,
        decides_in_thread: bool = False,
    ) -> None:
        """`decides_in_thread`: the stage asks a store far away, and Kafka must hear from this process meanwhile."""
        self.stage = stage
        self._in_thread = decides_in_thread
        self.owned = OwnedTopic(io, stage.topic, owner)
        self._io = io
        self._on_garbage = on_garbage
        self._counters: dict[str, Counter | PlainCounter] = {}
        self._readers: dict[str, Reader] = {}
        self._tails: list[asyncio.Task[None]] = []
        self._lock = asyncio.Lock()
        self._driver = stage.drivers[0]
        self._also: list[tuple[OwnedTopic, AnyStage]] = []
        """What a subclass claims after the stage's topic. It is prepared meanwhile: claims have an order, but the dozen
        round trips before one need not wait for another."""
        self._followed = stage.sources
        """The sources that are read here; a subclass reads others by itself."""

    async def start(self) -> None:
        """Claim and resume. Raises LostOwnershipError, TruncatedTopicError, UnknownEventError."""
        claim = self.owned.claim(self.stage.remember, self.stage)
        await together(claim, *(topic.prepare(stage.remember, stage) for topic, stage in self._also))
        ends: dict[str, int] = {}
        await together(self.claim_others(), *(self._open_source(source, ends) for source in self._followed))
        for owned, _ in self._also:
            # It was opened beside its claim, maybe before a former owner's last append.
            if owned.topic in ends:
                ends[owned.topic] = max(ends[owned.topic], owned.claimed_end)
        await self._catch_up(ends)
        for source in self._followed:
            if source != self._driver:
                self._tails.append(asyncio.create_task(self._tail(source), name=f"tail-{source}"))
        await self._readers[self._driver].close()  # from here on Faust delivers the driving topic
        log.info("stage_resumed", stage=self.stage.topic, epoch=self.owned.epoch, ends=ends)

    async def _open_source(self, source: str, ends: dict[str, int]) -> None:
        """Begin to read a source where the stage needs it; note its end of now."""
        need = self.stage.need[source]
        self._readers[source] = reader = await self._io.reader(source, need.offset)
        self._counters[source] = counter_for(source, need)
        ends[source] = reader.first_end

    async def claim_others(self) -> None:
        """Claim what a subclass owns besides; if one topic is lost, all are. Raises LostOwnershipError.

        Called when the stage's memory is folded, and the sources are not yet: they are opened meanwhile.
        """
        for topic, stage in self._also:
            if self.owned.lost.done():  # the new owner of the first topic claims the others, too
                raise self.owned.lost.result()
            await topic.claim(stage.remember, stage)
            topic.lost.add_done_callback(lambda lost: self.owned.give_up(lost.result()))

    async def _catch_up(self, ends: dict[str, int]) -> None:
        """Fold every source up to the end that it had at the claim, and decide what is due.

        A stage with one driving topic waits for its other sources as it needs them. So the order of reading does not
        matter; what is read too early is held in memory.

        With two driving topics the order is part of the decisions. First, what is already decided of both is folded:
        otherwise an old command would be missing when a snapshot is decided again. Then the later drivers (commands)
        are read to their ends, because what the operator commanded meanwhile concerns what is decided now.
        """
        drivers = [source for source in self.stage.drivers if source in self._followed]
        if len(drivers) > 1:
            upto = self.stage.upto
            for source in drivers:
                await self._read_to({source: min(ends[source], upto[source][0] + 1)}, self._fold)
            await pump(self.stage, self.owned, in_thread=self._in_thread)
            for source in reversed(drivers[1:]):
                await self._read_to({source: ends[source]}, self.process)
        await self._read_to(ends, self.process)

    async def _read_to(self, ends: dict[str, int], handle: Callable[[Decision], Awaitable[None]]) -> None:
        unread = dict(ends)
        while unread:
            for source in self._due(unread):
                batch = await self._readers[source].read(unread[source])
                if not batch:
                    del unread[source]
                for offset, record in batch:
                    await self._take(source, offset, record, handle)

    def _due(self, unread: Collection[str]) -> list[str]:
        """The sources to read next: the drivers, or the others while the driver's oldest event waits for them."""
        others = [source for source in unread if source not in self.stage.drivers]
        drivers = [source for source in unread if source in self.stage.drivers]
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
                await self._on_garbage(source, offset, _told(source, record), counter.garbage)

    async def process(self, decision: Decision) -> None:
        """Fold one counted decision of a source, and send the decisions that are due then."""
        self.stage.absorb(decision)
        await pump(self.stage, self.owned, in_thread=self._in_thread)

    async def _tail(self, source: str) -> None:
        try:
            while True:
                for offset, record in await self._readers[source].read():
                    await self._take(source, offset, record)
        except LostOwnershipError as loss:
            self.owned.give_up(loss)

    async def deliver(self, offset: int, record: bytes) -> None:
        """Take one record of the driving topic. Records missing before it are read directly: Faust may start later."""
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
        """The next offset of the driving topic."""
        return self._counters[self._driver].next_offset

    async def behind(self) -> bool | None:
        """Whether the driving topic holds records that were not delivered. None if the broker does not answer."""
        try:
            return await self._readers[self._driver].end() > self.position
        except (KafkaError, WorldError, OSError):
            return None

    async def look_ahead(self) -> None:
        """Read the next records of the driving topic directly.

        Raises CorruptTopicError for a damaged record, at which Faust's consumer would stop silently.
        """
        reader = await self._io.reader(self._driver, self.position)
        try:
            await reader.read()
        finally:
            await reader.close()

    def tails_failed(self) -> BaseException | None:
        """The exception of a tail that failed because of a bug, if there is one."""
        for task in self._tails:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def close(self) -> None:
        """Stop the tails, the readers and the watch of the claim; afterwards nothing is sent."""
        self.owned.give_up(LostOwnershipError("this tenure has ended", foreign=False))
        for task in self._tails:
            task.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        for reader in self._readers.values():
            await reader.close()
        await self.owned.close()
        for topic, _ in self._also:
            await topic.close()
