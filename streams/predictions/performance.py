"""Makes what a model is sent of its own performance, for contracts that ask for it.

Pure. Folds `snapshots`, returns JSON values for each model, and what RoundOpened records of them. They come from the
model's snapshot of the period that was closed last when the round opened, so there is no hindsight in them. The round
records the decision that closed the period, so that every call can be computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    AnyEvent,
    PeriodClosed,
    RosterEntry,
    RoundPerformance,
    SnapshotTaken,
    SnapshotTakenData,
)

_encode = msgspec.json.Encoder(order="deterministic").encode


class LastPeriod(msgspec.Struct):
    """The snapshots of the last closed period."""

    seq: int = -1
    """The decision of `snapshots` that closed it; -1 before the first."""
    until: int = -1
    """Its end in ms."""
    snapshots: dict[str, SnapshotTakenData] = {}
    """model_id -> its snapshot."""

    def take(self, seq: int, events: Sequence[AnyEvent]) -> None:
        """Fold the next decision of `snapshots`."""
        closed = [event.data for event in events if isinstance(event, PeriodClosed)]
        if closed:
            self.seq, self.until = seq, closed[-1].until_ms
            taken = [event.data for event in events if isinstance(event, SnapshotTaken)]
            self.snapshots = {
                snapshot.model_id: snapshot for snapshot in taken if snapshot.period_end == self.until
            }

    def told(
        self, roster: Sequence[RosterEntry], contracts: Contracts
    ) -> tuple[RoundPerformance, dict[str, dict[str, Any]]]:
        """(what RoundOpened records, model_id -> what the model is sent), for the models of the roster."""
        performance_of = {entry.model_id: self._of(entry.model_id, contracts) for entry in roster}
        sha256 = hashlib.sha256(_encode(list(performance_of.values()))).hexdigest()
        return RoundPerformance(snapshots_seq=self.seq, sha256=sha256), performance_of

    def _of(self, model_id: str, contracts: Contracts) -> dict[str, Any]:
        data = self.snapshots.get(model_id)
        if data is None:
            return {}
        scale = 10 ** contracts(data.contract_hash).score_decimals

        def plain(units: Mapping[str, int | None]) -> dict[str, float | None]:
            return {name: None if value is None else value / scale for name, value in units.items()}

        return {
            "period_end": data.period_end,
            "windows": plain(data.windows_units),
            "boards": plain(data.boards_units),
            "summary": plain(data.summary_units),
            "counts": {
                "scored": data.scored_count,
                "failed": data.failed_count,
                "absent": data.absent_model_count + data.absent_node_count,
            },
        }
