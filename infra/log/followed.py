"""One topic, followed by a process that owns nothing: every counted decision once, as far as the topic goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.topology import topic_name

OnProgress = Callable[[int, int], None]
"""(records read, records in the topic)"""


class FollowedTopic:
    """`async with FollowedTopic(bootstrap, crunch_id, topic) as followed`: `followed.decisions()` yields what is new.

    Raises WorldError when Kafka does not answer, OperatorError when the crunch has no topics.
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
