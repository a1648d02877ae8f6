"""Explains a figure: finds where its events stand, reads them from the log, and hands them to the pure functions.

Reads the read models and the log; emits nothing. Every row of a read model has the offset of the decision that wrote it
(`projections/storage/versions.py`), so an id leads to positions without another index, also as of the past. The
decisions at these positions are read from the log itself. The rows of feed records and snapshots hold the whole event
already. An answer that the routes hide is hidden here by the same rule (`Predictions.round`).
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.projections.explaining.finding import parts_of
from coordinator.projections.explaining.prediction import prediction_facts
from coordinator.projections.explaining.reading import ReadAppends
from coordinator.projections.explaining.share import share_facts
from coordinator.projections.explaining.snapshot import snapshot_facts
from coordinator.projections.folding.past import Readable
from coordinator.streams.audit.explain.prediction import explain_prediction
from coordinator.streams.audit.explain.share import explain_share
from coordinator.streams.audit.explain.snapshot import explain_snapshot
from coordinator.streams.audit.explain.steps import Explanation
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import in_force


class Explainer:
    """Explains from read models, of now or of the past. Blocking: call it in a thread."""

    def __init__(self, appends: ReadAppends, contracts: Callable[[str], CrunchContract]) -> None:
        self._appends = appends
        self._contracts = contracts

    def prediction(self, read: Readable, prediction_id: str) -> Explanation:
        """A prediction's whole life. Raises UnknownFigureError, WorldError, LogError."""
        parts = parts_of(read, prediction_id)
        return explain_prediction(prediction_facts(read, *parts, self._appends, self._contracts))

    def share(self, read: Readable, checkpoint_id: str, model_id: str) -> Explanation:
        """A model's share of a checkpoint. Raises UnknownFigureError, WorldError, LogError."""
        told = in_force(read.snapshots.terms.in_order)
        return explain_share(share_facts(read, checkpoint_id, model_id, self._appends, self._contracts, told))

    def snapshot(self, read: Readable, model_id: str, at_ms: int) -> Explanation:
        """A model's snapshot of the period that holds a time. Raises UnknownFigureError, WorldError, LogError."""
        told = in_force(read.snapshots.terms.in_order)
        return explain_snapshot(snapshot_facts(read, model_id, at_ms, self._appends, self._contracts, told))
