"""Owning a topic: the claim, the numbered sends, the watch for a successor.

A new owner reads its topic from the newest state that is recorded there, and writes a claim (epoch = current + 1).
Only if that claim counted does it write anything under its epoch. From then on every append carries the epoch and the
next number; an append of an owner that was replaced does not count, whenever it arrives. A failed send ends the
ownership at once: what was sent after it could stand in the log without what went before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from coordinator.streams.agents.owning.log_io import LogIO, Reader, Writer, records_until
from coordinator.streams.agents.owning.states import newest_state
from coordinator.streams.events import AnyEvent
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    Position,
    encode_append,
    encode_decision,
)
from coordinator.streams.log.recorded import form_of, is_due, parts_of, records_of, take
from coordinator.streams.log.stage import AnyStage

IN_FLIGHT_MAX = 256

log = structlog.get_logger()


class LostOwnershipError(Exception):
    """Somebody else claimed the topic, or an own send failed. `foreign`: wait for a new assignment."""

    def __init__(self, reason: str, *, foreign: bool) -> None:
        super().__init__(reason)
        self.foreign = foreign


class _StateToRecord(NamedTuple):
    """A stage's state just after its own decision `seq`, which nobody has read back yet."""

    seq: int
    parts: tuple[bytes, ...]
    upto: dict[str, Position]
    need: dict[str, Need]


class OwnedTopic:
    """One topic, claimed. Made by `claim`."""

    def __init__(self, io: LogIO, topic: str, owner: str) -> None:
        self.topic = topic
        self.owner = owner
        self.epoch = 0
        self.seq = 0
        self.lost: asyncio.Future[LostOwnershipError] = asyncio.get_running_loop().create_future()
        self._io = io
        self._writer: Writer | None = None
        self._tail: Reader | None = None
        self._counter = Counter(topic)
        self._in_flight: deque[asyncio.Future[int]] = deque()
        self._acknowledged = -1
        """The offset of the last own record that is durable."""
        self._watching: asyncio.Task[None] | None = None
        self.read_from = 0
        """Where the reading of the topic began: behind the decision that the newest recorded state is of."""
        self._stage: AnyStage | None = None
        self._form = ""
        self._bytes_since = self._state_bytes = 0
        """Of decisions since the last state that was recorded or is to be, and of that state."""
        self._state: _StateToRecord | None = None

    async def claim(self, remember: Callable[[Decision], None], stage: AnyStage | None = None) -> None:
        """Read the topic, claim it, hand every counted decision to `remember`, in order.

        A `stage` that is given takes up the newest state that is recorded of it, and `remember` hears what follows;
        from here on its state is recorded now and then. Raises LostOwnershipError when another claim took the epoch
        first.
        """
        self._tail = reader = await self._io.reader(self.topic, 0)
        start = Need()
        if stage is not None:
            self._stage, self._form = stage, form_of(stage)
            found = await newest_state(self._io, self.topic, await reader.end(), self._form)
            if found is not None:
                take(stage, found)
                start, self._state_bytes = found.after, sum(map(len, found.parts))
                self._counter, self.read_from = Counter(self.topic, start), start.offset
                await reader.close()
                self._tail = reader = await self._io.reader(self.topic, start.offset)
        await self._fold(await reader.end(), remember)
        self._writer = await self._io.writer()
        epoch = self._counter.epoch + 1
        claim = Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim=self.owner)
        try:
            mine = await (await self._writer.send(self.topic, encode_append(claim)))
        except Exception as error:
            message = f"the claim of {self.topic} could not be sent: {error}"
            raise LostOwnershipError(message, foreign=False) from error
        await self._fold(mine, remember)
        claims_before = self._counter.claims
        await self._fold(mine + 1, remember)
        if self._counter.claims == claims_before:
            message = f"the claim of {self.topic} for epoch {epoch} came second"
            raise LostOwnershipError(message, foreign=False)
        self.epoch, self.seq, self._acknowledged = epoch, self._counter.seq, mine
        log.info(
            "topic_claimed",
            topic=self.topic,
            epoch=epoch,
            seq=self.seq,
            offset=mine,
            read_from=self.read_from,
        )
        self._watching = asyncio.create_task(self._watch(), name=f"watch-{self.topic}")

    async def _fold(self, end: int, remember: Callable[[Decision], None]) -> None:
        if self._tail is None:
            raise RuntimeError
        async for offset, record in records_until(self._tail, end):
            decision = self._counter.read(offset, record)
            if decision is not None:
                self._bytes_since += sum(memoryview(body).nbytes for body in decision.bodies)
                remember(decision)

    async def _watch(self) -> None:
        """Tail the own topic: a claim that is not ours, and counts, ends this ownership.

        Patiently: what is sent until the claim is noticed does not count, and a fetch for every own append would cost
        as much as a tenth of the deciding.
        """
        if self._tail is None:
            raise RuntimeError
        try:
            await self._tail.close()
            self._tail = await self._io.reader(self.topic, self._counter.next_offset, patient=True)
            while not self.lost.done():
                for offset, record in await self._tail.read():
                    decision = self._counter.read(offset, record)
                    if self._counter.epoch > self.epoch:
                        message = f"{self.topic} was claimed by another owner (epoch {self._counter.epoch})"
                        self.give_up(LostOwnershipError(message, foreign=True))
                        return
                    if decision is not None and self._state is not None and decision.seq == self._state.seq:
                        await self._record_state(self._state, decision.after())
        except Exception as error:  # noqa: BLE001 - an owner that cannot watch its topic is no owner
            self.give_up(LostOwnershipError(f"{self.topic} cannot be watched: {error}", foreign=False))

    def give_up(self, why: LostOwnershipError) -> None:
        """End the ownership, once."""
        if not self.lost.done():
            self.lost.set_result(why)

    async def send(
        self, events: list[AnyEvent], upto: dict[str, Position], need: dict[str, Need]
    ) -> asyncio.Future[int]:
        """Send one decision as the next number; the future is its last part's. Raises LostOwnershipError."""
        if self.lost.done():
            raise self.lost.result()
        if self._writer is None:
            raise RuntimeError
        self.seq += 1
        last: asyncio.Future[int] | None = None
        records = encode_decision(events, epoch=self.epoch, seq=self.seq, upto=upto, need=need)
        self._bytes_since += sum(map(len, records))
        # Now, before anybody else has a turn: the stage's state is that of this very decision.
        if self._stage is not None and self._state is None and is_due(self._bytes_since, self._state_bytes):
            self._state = _StateToRecord(self.seq, parts_of(self._stage.state.own), dict(upto), dict(need))
            self._bytes_since, self._state_bytes = 0, sum(map(len, self._state.parts))
        for record in records:
            try:
                last = await self._writer.send(self.topic, record)
            except Exception as error:
                why = LostOwnershipError(f"a send to {self.topic} failed: {error}", foreign=False)
                self.give_up(why)
                raise why from error
            last.add_done_callback(self._sent)
            self._in_flight.append(last)
        while len(self._in_flight) > IN_FLIGHT_MAX:
            await asyncio.wait([self._in_flight[0]])
            self._in_flight.popleft()
        if last is None:
            raise RuntimeError
        return last

    async def _record_state(self, state: _StateToRecord, after: Need) -> None:
        """Write down a state whose decision has been counted: from here on it is true whoever owns the topic."""
        if self._writer is None:
            raise RuntimeError
        self._state = None
        for record in records_of(
            self._form,
            state.parts,
            epoch=self.epoch,
            after=after,
            upto=state.upto,
            need=state.need,
        ):
            (await self._writer.send(self.topic, record)).add_done_callback(self._sent)

    def _sent(self, future: asyncio.Future[int]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.give_up(LostOwnershipError(f"a send to {self.topic} failed: {error}", foreign=False))
            return
        offset = future.result()
        if 0 <= offset <= self._acknowledged:  # -1: taken before, and the broker does not know where any more
            # Offsets only grow. The watch over the own log ends this process for it, but looks every few seconds.
            how = f"it took a record at {offset}, though it has had {self._acknowledged}"
            self.give_up(LostOwnershipError(f"{self.topic} was made anew: {how}", foreign=False))
        self._acknowledged = max(offset, self._acknowledged)

    async def flush(self) -> None:
        """Wait until all that was sent is durable. Raises LostOwnershipError if something was not."""
        while self._in_flight:
            await asyncio.wait([self._in_flight.popleft()])
        if self.lost.done():
            raise self.lost.result()

    async def close(self) -> None:
        """Stop watching and sending."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._writer is not None:
            await self._writer.close()
        if self._tail is not None:
            await self._tail.close()


async def pump(stage: AnyStage, owned: OwnedTopic) -> asyncio.Future[int] | None:
    """Send every decision that is due, in order; gives the future of the last one."""
    last: asyncio.Future[int] | None = None
    while (draft := stage.step()) is not None:
        last = await owned.send(list(draft.events), dict(stage.upto), dict(stage.need))
    return last


Deliver = Callable[[int, bytes], Awaitable[None]]
