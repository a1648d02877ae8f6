"""The models' state, folded from the topic `models` by a process that owns no topic."""

from __future__ import annotations

from coordinator.infra.log.followed import FollowedTopic
from coordinator.streams.events import ModelSeen
from coordinator.streams.log.counting import Decision
from coordinator.streams.models.state import ModelsState
from coordinator.streams.settings import Settings


class ModelsLog(FollowedTopic):
    """`async with ModelsLog(settings) as log`: `await log.read()` folds new decisions into `models` and `names`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.kafka_bootstrap, settings.crunch_id, "models")
        self.models = ModelsState()
        self.names: dict[str, str] = {}
        """Model id -> its newest name, for every model that was ever seen."""
        self._decided = -1

    async def read(self) -> None:
        """Read up to the topic's end as of now. Raises as `FollowedTopic` does."""
        async for decision in self.decisions():
            self.take(decision)

    def take(self, decision: Decision) -> None:
        """Fold one decision of the topic, in order."""
        for event in decision.events:
            self.models.evolve(event)
            if isinstance(event, ModelSeen):
                self.names[event.data.model_id] = event.data.model_name
        self._decided = max(self._decided, decision.upto.get("commands", (-1, -1))[0])

    def decided(self, command_offset: int) -> bool:
        """Whether the predict worker has decided the command at this offset."""
        return self._decided >= command_offset
