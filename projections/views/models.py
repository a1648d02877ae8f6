"""The read model of registered models, for `/reports/models`. Folds `models`."""

from __future__ import annotations

from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.projections.views.model_rows import ModelRow, ModelRows
from coordinator.streams.log.counting import Decision


class Models(Projection):
    """Every model ever seen, with its state."""

    name = "models"
    topics = ("models",)

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._rows = ModelRows(store)

    def apply(self, decision: Decision, batch: Batch) -> None:
        self._rows.apply(decision, batch)

    def all(self) -> list[ModelRow]:
        """All rows, in the order of model_id."""
        return [self._rows.by_id[model_id] for model_id in sorted(self._rows.by_id)]

    def get(self, model_id: str) -> ModelRow:
        """The row, or one with the id alone."""
        return self._rows.get(model_id)
