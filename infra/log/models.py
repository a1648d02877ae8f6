"""The models' state, folded from the topic `models` by a process that owns no topic."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.events import ModelSeen
from coordinator.streams.log.counting import Counter
from coordinator.streams.models.state import ModelsState
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name


class ModelsLog:
    """`async with ModelsLog(settings) as log`: `await log.read()` folds new records into `models` and `names`.

    Raises WorldError when Kafka does not answer, OperatorError when the crunch has no topics.
    """

    def __init__(self, settings: Settings) -> None:
        self.models = ModelsState()
        self.names: dict[str, str] = {}
        """Model id -> its newest name, for every model that was ever seen."""
        self._crunch_id = settings.crunch_id
        self._reading = reading(settings.kafka_bootstrap)
        self._consumer: AIOKafkaConsumer | None = None
        self._counter = Counter("models")
        self._decided = -1

    async def __aenter__(self) -> Self:
        self._consumer = await self._reading.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reading.__aexit__(kind, error, trace)

    async def read(self) -> None:
        """Read up to the topic's end as of now."""
        if self._consumer is None:
            raise RuntimeError
        start, end = (await offsets(self._consumer, self._crunch_id))["models"]
        first = max(start, self._counter.next_offset)
        async for offset, record in read_range(
            self._consumer, topic_name(self._crunch_id, "models"), first, end
        ):
            self.take(offset, record)

    def take(self, offset: int, record: bytes) -> None:
        """Fold one record of the topic, in order."""
        decision = self._counter.read(offset, record)
        if decision is None:
            return
        for event in decision.events:
            self.models.evolve(event)
            if isinstance(event, ModelSeen):
                self.names[event.data.model_id] = event.data.model_name
        self._decided = max(self._decided, decision.upto.get("commands", (-1, -1))[0])

    def decided(self, command_offset: int) -> bool:
        """Whether the predict worker has decided the command at this offset."""
        return self._decided >= command_offset
