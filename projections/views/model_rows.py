"""The rows of models: names, crunchers, statuses. Several projections keep them, each in its own store.

Folds `models`. A projection joins them to its own rows by model_id when it is read. They are few, so they are also
held in memory.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.projection import encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.streams.events import (
    ModelBanned,
    ModelFailureReported,
    ModelLeft,
    ModelReadmitted,
    ModelSeen,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import ensemble_name, is_ensemble

RUNNING, LEFT, BANNED, ENSEMBLE = "RUNNING", "LEFT", "BANNED", "ENSEMBLE"


class LastFailure(msgspec.Struct, frozen=True):
    """The last failure that was reported to the orchestrator: the protocol's code, the reason, and when (ms)."""

    code: str
    reason: str
    at: int


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it was seen last. `left_at` is set after it left, `ban_reason` while it is banned. Times are in ms."""

    model_id: str
    model_name: str = ""
    deployment_id: str = ""
    cruncher_id: str = ""
    cruncher_name: str = ""
    wallet_pubkey: str = ""
    hotkey: str = ""
    first_seen_at: int | None = None
    left_at: int | None = None
    left_reason: str = ""
    ban_reason: str | None = None
    deployments: int = 0
    failures: int = 0
    last_failure: LastFailure | None = None

    @property
    def ensemble(self) -> bool:
        """Whether it is an ensemble, and no participant's model."""
        return is_ensemble(self.model_id)

    @property
    def status(self) -> str:
        """BANNED (by the operator, whatever the orchestrator says), LEFT, RUNNING or ENSEMBLE."""
        if self.ensemble:
            return ENSEMBLE
        if self.ban_reason is not None:
            return BANNED
        # One that no orchestrator has named hands in its answers: it takes part as long as it has scores.
        return LEFT if self.left_at is not None else RUNNING


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
                    before = self.get(data.model_id)
                    fields = {name: getattr(data, name) for name in data.__struct_fields__}
                    after = msgspec.structs.replace(
                        before,
                        **fields,
                        first_seen_at=before.first_seen_at
                        or at,  # an `at` of 0 was recorded before the first tick
                        left_at=None,
                        left_reason="",
                        deployments=before.deployments + (before.deployment_id != data.deployment_id),
                    )
                case ModelLeft(at=at, data=data):
                    before = self.get(data.model_id)
                    if before.deployment_id not in ("", data.deployment_id):
                        continue  # an older deployment left; the model runs under a newer one
                    after = msgspec.structs.replace(before, left_at=at, left_reason=data.reason)
                case ModelBanned(data=data):
                    after = msgspec.structs.replace(self.get(data.model_id), ban_reason=data.reason)
                case ModelReadmitted(data=data):
                    after = msgspec.structs.replace(self.get(data.model_id), ban_reason=None)
                case ModelFailureReported(at=at, data=data):
                    before = self.get(data.model_id)
                    last = LastFailure(data.code, data.reason, at)
                    after = msgspec.structs.replace(before, failures=before.failures + 1, last_failure=last)
                case _:
                    continue
            self.by_id[after.model_id] = after
            batch.put(key("M", after.model_id), encode_row(after))

    def get(self, model_id: str) -> ModelRow:
        """The row of a model, or a row with the id alone, because a score may be folded before its model."""
        return self.by_id.get(model_id) or ModelRow(
            model_id=model_id, model_name=ensemble_name(model_id) if is_ensemble(model_id) else ""
        )
