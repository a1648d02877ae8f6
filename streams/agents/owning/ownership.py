"""Owning a topic: the claim, the numbered sends, the watch for a successor.

A new owner reads its topic from the newest recorded state on, and appends a claim (epoch = current + 1). It writes
under its epoch only if that claim counts. From then on every append has the epoch and the next number. An append of a
former owner does not count, whenever it arrives. A failed send ends the ownership at once: otherwise a later append
could be in the log without the earlier one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from coordinator.infra.together import together
from coordinator.streams.agents.owning.log_io import LogIO, Reader, Writer, decisions_until
from coordinator.streams.agents.owning.newest_state import newest_state
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
from coordinator.streams.log.recorded_state import StateRecorder
from coordinator.streams.log.stage import AnyStage, Draft

IN_FLIGHT_MAX = 256

log = structlog.get_logger()


class LostOwnershipError(Exception):
    """Another owner claimed the topic (`foreign`: wait for a new assignment), or a send of our own failed."""

    def __init__(self, reason: str, *, foreign: bool) -> None:
        super().__init__(reason)
        self.foreign = foreign


class OwnedTopic:
    """A topic that this process owns, from `claim` until `lost` is done."""

    def __init__(self, io: LogIO, topic: str, owner: str) -> None:
        self.topic = topic
        self.owner = owner
        self.epoch = 0
        self.seq = 0
        self.claimed_end = 0
        """The offset after our claim: what a former owner appended from there on does not count."""
        self.lost: asyncio.Future[LostOwnershipError] = asyncio.get_running_loop().create_future()
        self._io = io
        self._writer: Writer | None = None
        self._tail: Reader | None = None
        self._counter = Counter(topic)
        self._in_flight: deque[asyncio.Future[int]] = deque()
        self._acknowledged = -1
        """The offset of our last durable record."""
        self._watching: asyncio.Task[None] | None = None
        self.read_from = 0
        """Where reading the topic began: after the decision whose state is the newest recorded one."""
        self._states: StateRecorder | None = None
        """None: the topic was claimed without a stage."""

    async def prepare(self, remember: Callable[[Decision], None], stage: AnyStage | None = None) -> None:
        """Do the part of `claim` that a standby can do ahead: read the topic to its present end, and connect. `claim`
        continues from there.
        """
        await together(self._read_up(remember, stage), self._open_writer())

    async def claim(self, remember: Callable[[Decision], None], stage: AnyStage | None = None) -> None:
        """Read the topic, claim it, and hand every counted decision to `remember`, in order.

        A `stage`, if given, takes over its newest recorded state, and `remember` gets only the decisions after it; from
        then on the stage's state is recorded now and then. Raises LostOwnershipError when another claim took the epoch
        first.
        """
        if self._tail is None or self._writer is None:
            await self.prepare(remember, stage)
        else:
            await self._fold(await self._tail.end(), remember)  # what came since
        epoch = self._counter.epoch + 1
        claim = Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim=self.owner)
        try:
            claimed_at = await (await self._opened_writer.send(self.topic, encode_append(claim)))
        except Exception as error:
            message = f"the claim of {self.topic} could not be sent: {error}"
            raise LostOwnershipError(message, foreign=False) from error
        # Another owner may have appended before our claim: read up to it, then the claim itself. It counts only if no
        # other claim has taken the epoch.
        await self._fold(claimed_at, remember)
        claims_before = self._counter.claims
        await self._fold(claimed_at + 1, remember)
        if self._counter.claims == claims_before:
            message = f"the claim of {self.topic} for epoch {epoch} came second"
            raise LostOwnershipError(message, foreign=False)
        self.epoch, self.seq, self._acknowledged = epoch, self._counter.seq, claimed_at
        self.claimed_end = claimed_at + 1
        log.info(
            "topic_claimed",
            topic=self.topic,
            epoch=epoch,
            seq=self.seq,
            offset=claimed_at,
            read_from=self.read_from,
        )
        self._watching = asyncio.create_task(self._watch(), name=f"watch-{self.topic}")

    async def _open_writer(self) -> None:
        self._writer = await self._io.writer()

    @property
    def _opened_writer(self) -> Writer:
        if self._writer is None:
            raise RuntimeError(f"{self.topic} was not claimed")
        return self._writer

    @property
    def _opened_tail(self) -> Reader:
        if self._tail is None:
            raise RuntimeError(f"{self.topic} was not claimed")
        return self._tail

    async def _read_up(self, remember: Callable[[Decision], None], stage: AnyStage | None) -> None:
        """Read the topic up to its end now, from the newest recorded state on if there is one."""
        self._tail = reader = await self._io.reader(self.topic, 0)
        if stage is not None:
            self._states = StateRecorder(stage, often=self._io.states_often)
            recorded = await newest_state(self._io, self.topic, reader.first_end, self._states.form)
            if recorded is not None:
                self._states.take(recorded)
                start = recorded.after
                self._counter, self.read_from = Counter(self.topic, start), start.offset
                await reader.close()
                self._tail = reader = await self._io.reader(self.topic, start.offset)
        await self._fold(reader.first_end, remember)

    async def _fold(self, end: int, remember: Callable[[Decision], None]) -> None:
        async for decision in decisions_until(self._opened_tail, self._counter, end):
            if self._states is not None:
                self._states.note(sum(memoryview(body).nbytes for body in decision.bodies))
            remember(decision)

    async def _watch(self) -> None:
        """Follow our own topic: a counted claim of another owner ends this ownership.

        The reader is patient, because what we send until the claim is noticed does not count anyway. A fetch for each
        append of our own would cost a tenth of the time for deciding.
        """
        try:
            await self._opened_tail.close()
            self._tail = tail = await self._io.reader(self.topic, self._counter.next_offset, patient=True)
            while not self.lost.done():
                for offset, record in await tail.read():
                    decision = self._counter.read(offset, record)
                    if self._counter.epoch > self.epoch:
                        message = f"{self.topic} was claimed by another owner (epoch {self._counter.epoch})"
                        self.give_up(LostOwnershipError(message, foreign=True))
                        return
                    if decision is not None:
                        await self._record_state(decision)
        except Exception as error:  # noqa: BLE001 - without the watch nobody would notice another owner
            self.give_up(LostOwnershipError(f"{self.topic} cannot be watched: {error}", foreign=False))

    def give_up(self, loss: LostOwnershipError) -> None:
        """End the ownership. Later calls do nothing."""
        if not self.lost.done():
            self.lost.set_result(loss)

    async def send(
        self, events: list[AnyEvent], upto: dict[str, Position], need: dict[str, Need]
    ) -> asyncio.Future[int]:
        """Send one decision under the next number; returns the future of its last part. Raises LostOwnershipError."""
        if self.lost.done():
            raise self.lost.result()
        self.seq += 1
        records = encode_decision(events, epoch=self.epoch, seq=self.seq, upto=upto, need=need)
        if (
            self._states is not None
        ):  # before the first await: now the stage's state is the one after this decision
            self._states.made(self.seq, sum(map(len, records)))
        parts = [await self._append(record) for record in records]
        while len(self._in_flight) > IN_FLIGHT_MAX:
            await asyncio.wait([self._in_flight[0]])
            self._in_flight.popleft()
        return parts[-1]

    async def _append(self, record: bytes) -> asyncio.Future[int]:
        try:
            sent = await self._opened_writer.send(self.topic, record)
        except Exception as error:
            loss = LostOwnershipError(f"a send to {self.topic} failed: {error}", foreign=False)
            self.give_up(loss)
            raise loss from error
        sent.add_done_callback(self._sent)
        self._in_flight.append(sent)
        return sent

    async def _record_state(self, decision: Decision) -> None:
        """Append the state after a decision that was counted, if it is due: it is true now, whoever owns the topic."""
        if self._states is not None:
            for record in self._states.records_after(decision.after(), self.epoch):
                (await self._opened_writer.send(self.topic, record)).add_done_callback(self._sent)

    def _sent(self, future: asyncio.Future[int]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.give_up(LostOwnershipError(f"a send to {self.topic} failed: {error}", foreign=False))
            return
        offset = future.result()
        if 0 <= offset <= self._acknowledged:  # -1: a repeated send, whose offset the broker no longer knows
            # The offsets of a topic only grow. The log's watch will end this process, but looks only every few seconds.
            reason = f"a record has offset {offset}, after one at {self._acknowledged}"
            self.give_up(LostOwnershipError(f"{self.topic} was created again: {reason}", foreign=False))
        self._acknowledged = max(offset, self._acknowledged)

    async def flush(self) -> None:
        """Wait until everything that was sent is durable. Raises LostOwnershipError if a send failed."""
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


async def pump(stage: AnyStage, owned: OwnedTopic, *, in_thread: bool = False) -> asyncio.Future[int] | None:
    """Send every decision that is due, in order; returns the future of the last one, None if there was none.

    `in_thread`: the stage waits for something outside while it decides, and the event loop must not.
    """
    last: asyncio.Future[int] | None = None
    while (draft := await asyncio.to_thread(stage.step) if in_thread else stage.step()) is not None:
        last = await send_folded(stage, owned, draft)
    return last


async def send_folded(stage: AnyStage, owned: OwnedTopic, draft: Draft) -> asyncio.Future[int]:
    """Send a draft that the stage has just folded; returns the future of its last part. Raises LostOwnershipError."""
    return await owned.send(list(draft.events), dict(stage.upto), dict(stage.need))


async def fold_and_send(stage: AnyStage, owned: OwnedTopic, draft: Draft) -> asyncio.Future[int]:
    """As `send_folded`, for a draft that a call from outside made: it is not folded yet."""
    stage.remember(draft)
    return await send_folded(stage, owned, draft)
