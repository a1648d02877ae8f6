"""One owner's time with one stage: claim, resume, then follow the sources until it is lost.

Resuming: the own topic gives the stage's memory; the sources are folded from the last counted `need`, and what
is at or before `upto` is not decided again; then the same function goes on to the end of the sources as of the
claim. Only then is the gate opened to Faust's delivery of the driving topic. The other sources are
tailed by plain readers: a stage's ownership must hang on one partition, not on two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from coordinator.streams.agents.log_io import LogIO, Reader
from coordinator.streams.agents.ownership import LostOwnershipError, OwnedTopic, pump
from coordinator.streams.counting import Counter, Decision
from coordinator.streams.envelope import Need, decode_event
from coordinator.streams.stage import Stage
from coordinator.streams.topology import BY_TOPIC

log = structlog.get_logger()

OnGarbage = Callable[[str, int, bytes, str], None]


class PlainCounter:
    """`Counter` for topics of many writers: every record that is an event counts, as a decision of one."""

    def __init__(self, topic: str, start: Need | None = None, on_garbage: OnGarbage | None = None) -> None:
        self.topic = topic
        self.next_offset = (start or Need()).offset
        self._on_garbage = on_garbage

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The event as a decision, or None for bytes that are no event (handed to `on_garbage`)."""
        self.next_offset = offset + 1
        body = record or b""
        try:
            decode_event(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if self._on_garbage is not None:
                self._on_garbage(self.topic, offset, body, str(error))
            return None
        raws = (msgspec.Raw(b"[" + body + b"]"),)
        return Decision(self.topic, offset, offset, 0, Need(offset), {}, {}, raws)


class Tenure:
    """A stage with its claim. `start` resumes; `deliver` takes the driving topic's records afterwards."""

    def __init__(self, io: LogIO, stage: Stage, owner: str, on_garbage: OnGarbage | None = None) -> None:
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
        await self.owned.claim(self.stage.remember)
        ends: dict[str, int] = {}
        for source in self.stage.sources:
            need = self.stage.need[source]
            self._readers[source] = reader = await self._io.reader(source, need.offset)
            self._counters[source] = self._counter(source, need)
            ends[source] = await reader.end()
        await self.resumed_memory()
        await self._catch_up(ends)
        for source in self.stage.sources:
            if source != self._driver:
                self._tails.append(asyncio.create_task(self._tail(source), name=f"tail-{source}"))
        log.info("stage_resumed", stage=self.stage.topic, epoch=self.owned.epoch, ends=ends)

    def _counter(self, source: str, need: Need) -> Counter | PlainCounter:
        if BY_TOPIC[source].enveloped:
            return Counter(source, need)
        return PlainCounter(source, need, self._on_garbage)

    async def resumed_memory(self) -> None:
        """A hook: the own memory is folded, the sources are not."""

    async def _catch_up(self, ends: dict[str, int]) -> None:
        """Fold every source to its end as of the claim, a batch of each in turn, deciding as it goes."""
        left = dict(ends)
        while left:
            for source in list(left):
                batch = await self._readers[source].read(left[source])
                if not batch:
                    del left[source]
                for offset, record in batch:
                    await self._take(source, offset, record)

    async def _take(self, source: str, offset: int, record: bytes) -> None:
        async with self._lock:
            if self.owned.lost.done():
                raise self.owned.lost.result()
            counter = self._counters[source]
            if offset < counter.next_offset:
                return
            decision = counter.read(offset, record)
            if decision is not None:
                await self.process(decision)

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

    def tails_failed(self) -> BaseException | None:
        """The exception of a tail that died of our own bug, if any."""
        for task in self._tails:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def close(self) -> None:
        """Stop the tails, the readers and the claim's watch."""
        for task in self._tails:
            task.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        for reader in self._readers.values():
            await reader.close()
        await self.owned.close()
