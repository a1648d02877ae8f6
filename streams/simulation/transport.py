"""The transport of a simulation: `LogIO` over a log in memory, with latency, failing sends and processes that die.

Each process has its own `SimulatedLogIO`: its line to the shared log. A record that is sent is in flight for a while,
and records land in order. A line may be cut: reads and sends wait, and continue after it is repaired. It may be dead:
it does nothing more, but some records in flight may still land.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

from aiokafka.errors import KafkaTimeoutError

from coordinator.streams.agents.owning.log_io import READ_RECORDS_MAX
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.errors import TruncatedTopicError
from coordinator.streams.simulation.loop import RunawayError

WAIT_SECONDS = 5.0
"""How long a reader that is at the end waits for more."""
PATIENCE_SECONDS = 0.5
"""How late a patient reader is."""


class SendFault(NamedTuple):
    """What happens to one send. `dies`: the line dies during the send. `fails`: the send is reported as failed.
    `lands`: a failed send is in the log all the same.
    """

    dies: bool = False
    fails: bool = False
    lands: bool = False


OnSend = Callable[["SimulatedLogIO", str, int], SendFault | None]
"""(line, topic, number of the send to that topic by anybody, from 1 on)."""


class Shared:
    """The log of all processes."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.on_send: OnSend = lambda *_: None
        self.sends: Tally[str] = Tally()
        self.order: list[str] = []
        """The topic of each record that was appended here, in order."""
        self.records_max = 1 << 62
        """The log takes no more records, since a stage that never ends would fill the memory."""
        self.runs_away = ""
        self._waiting: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def append(self, topic: str, record: bytes) -> int:
        """Append a record and wake the readers that wait for it. Gives its offset."""
        offset = self.log.append(topic, record)
        self.order.append(topic)
        for waiting in self._waiting.pop(topic, ()):
            if not waiting.done():
                waiting.set_result(None)
        return offset

    async def grown(self, topic: str, beyond: int, seconds: float | None = WAIT_SECONDS) -> bool:
        """Wait until the topic ends behind the offset `beyond`, at most `seconds` (None: for ever). Says whether it
        does.
        """
        try:
            async with asyncio.timeout(seconds):
                while self.log.end(topic) <= beyond:
                    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting[topic].append(waiting)
                    await waiting
        except TimeoutError:
            return False
        return True


class _SendInFlight(NamedTuple):
    topic: str
    record: bytes
    future: asyncio.Future[int]
    fault: SendFault


class SimulatedLogIO:
    """One process's `LogIO`. `latency_seconds`: how long a send is on its way; 0: it lands at once."""

    def __init__(
        self,
        shared: Shared,
        latency_seconds: float = 0.0,
        *,
        states_often: bool = False,
    ) -> None:
        self.shared = shared
        self.latency_seconds = latency_seconds
        self.states_often = states_often
        self.dead = False
        self.on_death: Callable[[], None] = lambda: None
        """Called when a send's fault ends the line."""
        self._open = asyncio.Event()
        self._open.set()
        self._on_its_way: deque[_SendInFlight] = deque()

    async def ready(self) -> None:
        """Waits while the line is cut. On a dead line it waits without end."""
        if self.dead:
            await asyncio.get_running_loop().create_future()
        if not self._open.is_set():
            await self._open.wait()
            await self.ready()

    def cut(self) -> None:
        """Let all reads and sends wait."""
        self._open.clear()

    def mend(self) -> None:
        """Let reads and sends continue. The records in flight land now."""
        self._open.set()
        while self._on_its_way and not self.dead:
            self._land()

    def die(self, landing: int, late_seconds: float) -> None:
        """Ends the line. The first `landing` of the records in flight still arrive, `late_seconds` later."""
        self.dead = True
        self._open.set()
        late = [sent for sent in self._on_its_way if not sent.fault.fails][:landing]
        self._on_its_way.clear()

        def land() -> None:
            for sent in late:
                self.shared.append(sent.topic, sent.record)

        asyncio.get_running_loop().call_later(late_seconds, land)

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> LineReader:
        """See `LogIO`."""
        await self.ready()
        if offset > self.shared.log.end(topic):
            raise TruncatedTopicError(
                f"topic {topic} ends before {offset}: the topic was cut or created again"
            )
        return LineReader(self, topic, offset, patient=patient)

    async def writer(self) -> LineWriter:
        """See `LogIO`."""
        await self.ready()
        return LineWriter(self)

    async def send(self, topic: str, record: bytes) -> asyncio.Future[int]:
        """Send a record. It lands after the line's latency, as its fault says."""
        await self.ready()
        loop = asyncio.get_running_loop()
        if len(self.shared.order) > self.shared.records_max:
            self.shared.runs_away = f"{topic} runs away: the log has {len(self.shared.order)} records"
            raise RunawayError(self.shared.runs_away)
        self.shared.sends[topic] += 1
        fault = self.shared.on_send(self, topic, self.shared.sends[topic]) or SendFault()
        sent = _SendInFlight(topic, record, loop.create_future(), fault)
        self._on_its_way.append(sent)
        if fault.dies:
            self.on_death()
            await self.ready()
        if self.latency_seconds:
            loop.call_later(self.latency_seconds, self._due, sent)
        else:
            self._due(sent)
        return sent.future

    def _due(self, sent: _SendInFlight) -> None:
        while self._on_its_way and self._open.is_set() and not sent.future.done():
            self._land()

    def _land(self) -> None:
        topic, record, future, fault = self._on_its_way.popleft()
        offset = self.shared.append(topic, record) if fault.lands or not fault.fails else -1
        if future.done():
            return
        if fault.fails:
            future.set_exception(KafkaTimeoutError())
        else:
            future.set_result(offset)


class LineReader:
    """`Reader` of one line."""

    def __init__(self, line: SimulatedLogIO, topic: str, offset: int, *, patient: bool = False) -> None:
        self._line, self._topic, self.position = line, topic, offset
        self._patient = patient
        self.first_end = line.shared.log.end(topic)
        self.closed = False

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        """See `Reader`. As with a broker, others go on meanwhile."""
        shared = self._line.shared
        if until is not None and self.position >= until:
            return []
        await asyncio.sleep(0)
        await self._line.ready()
        if shared.log.end(self._topic) <= self.position:
            if not await shared.grown(
                self._topic, self.position, None if until is not None else WAIT_SECONDS
            ):
                return []
            if self._patient and until is None:
                await asyncio.sleep(PATIENCE_SECONDS)
            await self._line.ready()
        end = min(shared.log.end(self._topic), self.position + READ_RECORDS_MAX, until or 1 << 62)
        batch = [(offset, shared.log.record(self._topic, offset)) for offset in range(self.position, end)]
        self.position = end
        return batch

    async def end(self) -> int:
        """See `Reader`."""
        await self._line.ready()
        return self._line.shared.log.end(self._topic)

    async def close(self) -> None:
        """See `Reader`."""
        self.closed = True


class LineWriter:
    """`Writer` of one line."""

    def __init__(self, line: SimulatedLogIO) -> None:
        self._line = line
        self.closed = False

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        """See `Writer`. Raises RuntimeError once it is closed."""
        if self.closed:
            raise RuntimeError("sent by a closed writer")
        return await self._line.send(topic, value)

    async def close(self) -> None:
        """See `Writer`. Records in flight still land."""
        self.closed = True
