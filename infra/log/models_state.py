"""The models' state, folded from the topic `models` by a process that owns no topic."""

from __future__ import annotations

from coordinator.infra.log.followed_topic import CommandedTopic
from coordinator.streams.events import ModelSeen
from coordinator.streams.log.counting import Decision
from coordinator.streams.models.state import ModelsState
from coordinator.streams.settings import Settings


class ModelsLog(CommandedTopic):
    """`async with ModelsLog(settings) as log`: `await log.read()` folds new decisions into `models` and `names`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.kafka_bootstrap, settings.crunch_id, "models")
        self.models = ModelsState()
        self.names: dict[str, str] = {}
        """Model id -> its newest name, for every model that was ever seen."""

    def take(self, decision: Decision) -> None:
        """Fold one decision of the topic, in order."""
        for event in decision.events:
            self.models.evolve(event)
            if isinstance(event, ModelSeen):
                self.names[event.data.model_id] = event.data.model_name
        super().take(decision)
