"""The models that left while no worker listened: the orchestrator does not name them any more."""

from __future__ import annotations

from coordinator.streams.models.state import ModelsState
from coordinator.streams.ports import ModelGateway, ModelInfo, ModelNotice

GONE_SECONDS = 60.0
GONE = "the orchestrator does not name it any more"


class DepartedModels:
    """Since when which models are missing. The delay is for models that only restart."""

    def __init__(self, gateway: ModelGateway) -> None:
        self._gateway = gateway
        self._missing_since: dict[str, float] = {}

    def notices(self, now: float, models: ModelsState) -> list[ModelNotice]:
        """Notices for the models that were not named for GONE_SECONDS. `now`: seconds of a monotonic clock."""
        announced = self._gateway.announced
        if announced is None or not self._gateway.connected:
            self._missing_since.clear()
            return []
        if all(model_id in announced for model_id in models.seen):  # mostly: and the roster need not be made
            self._missing_since.clear()
            return []
        missing = [entry for entry in models.roster() if entry.model_id not in announced]
        since = {entry.model_id: self._missing_since.get(entry.model_id, now) for entry in missing}
        self._missing_since = since
        return [
            ModelNotice(
                "left",
                ModelInfo(
                    model_id, models.seen[model_id].data.model_name, models.seen[model_id].data.deployment_id
                ),
                reason=GONE,
            )
            for model_id, missing_since in since.items()
            if now - missing_since >= GONE_SECONDS
        ]
