"""Who the models are: rows that several projections keep, each in its own store, and join by model_id on
reading.

Folds `models`. Small enough to be held in memory as well.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.base import encode_row, key
from coordinator.projections.store import Batch, Store
from coordinator.streams.counting import Decision
from coordinator.streams.events import ModelBanned, ModelFailureReported, ModelLeft, ModelSeen

RUNNING, LEFT, BANNED = "RUNNING", "LEFT", "BANNED"


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model as last seen. `failures` counts reports to the orchestrator; times are ms."""

    model_id: str
    model_name: str = ""
    deployment_id: str = ""
    cruncher_id: str = ""
    cruncher_name: str = ""
    wallet_pubkey: str = ""
    hotkey: str = ""
    status: str = RUNNING
    reason: str = ""
    seen_at: int = 0
    changed_at: int = 0
    failures: int = 0


_decode = msgspec.msgpack.Decoder(ModelRow).decode


class ModelRows:
    """model_id -> ModelRow, in memory and as rows `M`."""

    def __init__(self, store: Store) -> None:
        rows = (_decode(row) for _, row in store.scan(b"M"))
        self.by_id: dict[str, ModelRow] = {row.model_id: row for row in rows}

    def apply(self, decision: Decision, batch: Batch) -> None:
        """Fold one decision of `models`."""
        for event in decision.events:
            match event:
                case ModelSeen(at=at, data=data):
                    before = self.by_id.get(data.model_id)
                    fields = {name: getattr(data, name) for name in data.__struct_fields__}
                    after = ModelRow(
                        **fields,
                        # The operator's word stands: a banned model that runs again is still banned.
                        status=BANNED if before and before.status == BANNED else RUNNING,
                        reason=before.reason if before and before.status == BANNED else "",
                        seen_at=before.seen_at if before else at,
                        changed_at=at,
                        failures=before.failures if before else 0,
                    )
                case ModelLeft(at=at, data=data):
                    before = self._row(data.model_id)
                    if before.status == BANNED or before.deployment_id not in ("", data.deployment_id):
                        continue  # an older deployment left; the model runs under a newer one
                    after = msgspec.structs.replace(before, status=LEFT, reason=data.reason, changed_at=at)
                case ModelBanned(at=at, data=data):
                    before = self._row(data.model_id)
                    after = msgspec.structs.replace(before, status=BANNED, reason=data.reason, changed_at=at)
                case ModelFailureReported(data=data):
                    before = self._row(data.model_id)
                    after = msgspec.structs.replace(before, failures=before.failures + 1)
                case _:
                    continue
            self.by_id[after.model_id] = after
            batch.put(key("M", after.model_id), encode_row(after))

    def _row(self, model_id: str) -> ModelRow:
        return self.by_id.get(model_id) or ModelRow(model_id=model_id)

    def get(self, model_id: str) -> ModelRow:
        """The row, or one with the id alone: a score may be read before its model's name."""
        return self._row(model_id)
