"""The log in memory: `LogIO` without a broker, with the faults that a test asks for.

io = MemoryLog()
io.records["inputs"] += [...]                     # offset = index
io.on_send = lambda topic, number: error or None  # the number-th send to a topic fails, 1-based
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable

from coordinator.streams.log.errors import TruncatedTopicError

WAIT_SECONDS = 0.01


class MemoryReader:
    """A `Reader` that returns each record once."""

    def __init__(self, log: MemoryLog, topic: str, offset: int) -> None:
        self._log = log
        self._topic = topic
        self.position = offset
        self.first_end = len(log.records[topic])
        self.closed = False

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        await asyncio.sleep(0)  # lets others run, as a broker would
        records = self._log.records[self._topic]
        end = len(records) if until is None else min(until, len(records))
        if end <= self.position:
            if until is None:
                await asyncio.sleep(WAIT_SECONDS)
            return []
        batch = [(offset, records[offset]) for offset in range(self.position, end)][: self._log.batch_max]
        self.position += len(batch)
        return batch

    async def end(self) -> int:
        return len(self._log.records[self._topic])

    async def close(self) -> None:
        self.closed = True


class MemoryWriter:
    """A `Writer`. Records are in the log at once, unless the log's `on_send` returns an error."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.closed = False

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        if self.closed:
            raise RuntimeError("sent by a closed writer")
        self._log.sends[topic] += 1
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        error = self._log.on_send(topic, self._log.sends[topic])
        if error is not None:
            sent.set_exception(error)
            return sent
        self._log.records[topic].append(value)
        sent.set_result(len(self._log.records[topic]) - 1)
        return sent

    async def close(self) -> None:
        self.closed = True


class MemoryLog:
    """`LogIO` over lists. One read returns at most `batch_max` records."""

    states_often = False

    def __init__(self, batch_max: int = 5) -> None:
        self.records: defaultdict[str, list[bytes]] = defaultdict(list)
        self.sends: Tally[str] = Tally()
        self.on_send: Callable[[str, int], Exception | None] = lambda _topic, _number: None
        self.batch_max = batch_max
        self.readers: list[MemoryReader] = []
        self.opened: list[tuple[str, int]] = []
        """(topic, offset) of every reader, in order."""

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> MemoryReader:
        if offset > len(self.records[topic]):
            raise TruncatedTopicError(f"topic {topic} ends before {offset}: it was cut or made anew")
        self.opened.append((topic, offset))
        self.readers.append(MemoryReader(self, topic, offset))
        return self.readers[-1]

    async def writer(self) -> MemoryWriter:
        return MemoryWriter(self)
