"""One topic, followed by a process that owns nothing: every counted decision once, as far as the topic goes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.topology import topic_name

OnProgress = Callable[[int, int], None]
"""(records read, records in the topic)"""


class FollowedTopic:
    """`async with FollowedTopic(bootstrap, crunch_id, topic) as followed`: `followed.decisions()` yields what is new.

    Raises WorldError when Kafka does not answer, at once or later (what aiokafka raises within becomes one at its end),
    OperatorError when the crunch has no topics.
    """

    def __init__(self, bootstrap: str, crunch_id: str, topic: str, start: Need | None = None) -> None:
        """`start` is where to begin, by default at the first record."""
        self._crunch_id = crunch_id
        self._topic = topic
        self._reading = reading(bootstrap)
        self._consumer: AIOKafkaConsumer | None = None
        self._counter = counter_for(topic, start)

    async def __aenter__(self) -> Self:
        self._consumer = await self._reading.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reading.__aexit__(kind, error, trace)

    async def decisions(
        self,
        on_progress: OnProgress = lambda _done, _total: None,
        enough: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[Decision]:
        """The counted decisions from where the last call ended up to the topic's end as of now, or until `enough`."""
        if self._consumer is None:
            raise RuntimeError
        start, end = (await offsets(self._consumer, self._crunch_id))[self._topic]
        first = max(start, self._counter.next_offset)
        name = topic_name(self._crunch_id, self._topic)
        async for offset, record in read_range(self._consumer, name, first, end):
            decision = self._counter.read(offset, record)
            on_progress(offset + 1 - start, end - start)
            if decision is not None:
                yield decision
                if enough():
                    return


class CommandedTopic(FollowedTopic, ABC):
    """A topic whose owner decides commands, followed by somebody who sends one and waits for its decision.

    `read` gives each new decision to `take`, which a subclass extends by what it folds.
    """

    def __init__(self, bootstrap: str, crunch_id: str, topic: str) -> None:
        super().__init__(bootstrap, crunch_id, topic)
        self._decided = -1

    async def read(self) -> None:
        """Read up to the topic's end as of now. Raises as `FollowedTopic` does."""
        async for decision in self.decisions():
            self.take(decision)

    @abstractmethod
    def take(self, decision: Decision) -> None:
        """Fold one decision of the topic, in order."""
        self._decided = max(self._decided, decision.upto.get("commands", (-1, -1))[0])

    def decided(self, command_offset: int) -> bool:
        """Whether the owner has decided the command at this offset."""
        return self._decided >= command_offset

    async def until_decided(
        self, command_offset: int, worker: str, seconds_max: float, more: str = ""
    ) -> None:
        """Read on until the command is decided. Raises WorldError after `seconds_max`; `more` ends its text."""
        try:
            async with asyncio.timeout(seconds_max):
                while not self.decided(command_offset):
                    await self.read()
        except TimeoutError:
            raise WorldError(
                f"the command is in the log (offset {command_offset}), but no {worker} worker has decided it in "
                f"{seconds_max:g} s; it will be decided when one runs{more}"
            ) from None
