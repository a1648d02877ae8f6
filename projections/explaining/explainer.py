"""Explains a figure: finds where its events stand, reads them from the log, and hands them on to be explained.

Reads the read models and the log; emits nothing. Every row of a read model has the offset of the decision that wrote it
(`projections/storage/versions.py`), so an id leads to positions without another index, also as of the past. The
decisions at these positions are read from the log itself. The rows of feed records and snapshots hold the whole event
already. An answer that the routes hide is hidden here by the same rule (`Predictions.round`).
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.projections.explaining.log_reading import ReadAppends
from coordinator.projections.explaining.place import place_facts, scope_facts
from coordinator.projections.explaining.prediction import prediction_facts
from coordinator.projections.explaining.share import share_facts
from coordinator.projections.explaining.snapshot import snapshot_facts
from coordinator.projections.explaining.typed_ids import parts_of
from coordinator.projections.folding.as_of import Readable
from coordinator.streams.audit.copy_rules import RULES, CopyRules
from coordinator.streams.audit.explain.recomputing import Facts
from coordinator.streams.audit.explain.steps import Explanation
from coordinator.streams.contract.terms import in_force
from coordinator.streams.durations import FAR_MS

EVER = (0, FAR_MS)
COMPARED_ROUNDS = 500
"""How many of the newest rounds and scopes are compared where nobody says how many."""


class Explainer:
    """Explains from read models, of now or of the past. Blocking: call it in a thread."""

    def __init__(self, appends: ReadAppends, explain: Callable[[Facts], Explanation]) -> None:
        """`explain` makes the explanation of gathered facts: it is what runs functions of the contract."""
        self.appends = appends
        self._explain = explain

    def prediction(self, read: Readable, prediction_id: str) -> Explanation:
        """A prediction's whole life. Raises UnknownFigureError, WorldError, LogError."""
        parts = parts_of(read, prediction_id)
        return self._explain(prediction_facts(read, *parts, self.appends))

    def share(self, read: Readable, checkpoint_id: str, model_id: str) -> Explanation:
        """A model's share of a checkpoint. Raises UnknownFigureError, WorldError, LogError."""
        told = in_force(read.snapshots.terms.in_order)
        return self._explain(share_facts(read, checkpoint_id, model_id, self.appends, told))

    def snapshot(self, read: Readable, model_id: str, at_ms: int) -> Explanation:
        """A model's snapshot of the period that holds a time. Raises UnknownFigureError, WorldError, LogError."""
        told = in_force(read.snapshots.terms.in_order)
        return self._explain(snapshot_facts(read, model_id, at_ms, self.appends, told))

    def place(self, read: Readable, model_id: str, by: str = "") -> Explanation:
        """A model's row of the live board, by the contract's ranking key or another. Raises UnknownFigureError,
        WorldError, LogError.
        """
        return self._explain(place_facts(read, model_id, by, self.appends))

    def copies(
        self,
        read: Readable,
        pair: tuple[str, str],
        span: tuple[int, int] = EVER,
        rounds: int = COMPARED_ROUNDS,
        rules: CopyRules = RULES,
    ) -> Explanation:
        """Whether two models answer alike, over the newest `rounds` that opened in `span` (ms). Raises
        UnknownFigureError, WorldError, LogError.
        """
        # numpy weighs 20 MB in the report worker: only where somebody asks.
        from coordinator.projections.explaining.copies import copy_facts  # noqa: PLC0415

        return self._explain(copy_facts(read, pair, span, rounds, rules, self.appends))

    def scope(self, read: Readable, model_id: str, scope: str, at_ms: int | None = None) -> Explanation:
        """A model's windows in one scope, now or at the end of the period that holds a time. Raises
        UnknownFigureError, WorldError, LogError.
        """
        return self._explain(scope_facts(read, model_id, scope, at_ms, self.appends))
