"""Events of `scores`: each prediction against the truth of its horizon."""

from __future__ import annotations

import msgspec

from coordinator.streams.events.base import Data, Event, Fault, FinalStatus


class PredictionScoredData(Data, frozen=True):
    """Score fields as integer units; `model_id` answered `input_id` for `scope_key`."""

    input_id: str
    scope_key: str
    model_id: str
    units: dict[str, int]


class PredictionScored(Event, frozen=True):
    """PENDING -> SCORED."""

    data: PredictionScoredData


class ScoringFailedData(Data, frozen=True):
    """Why the prediction has no score."""

    input_id: str
    scope_key: str
    model_id: str
    reason: str
    fault: Fault


class ScoringFailed(Event, frozen=True):
    """PENDING -> FAILED."""

    data: ScoringFailedData


class ClosedEntry(msgspec.Struct, frozen=True, array_like=True):
    """[model_id, status, fault or null, charge in units or null, cruncher_id or empty]."""

    model_id: str
    status: FinalStatus
    fault: Fault | None = None
    charge_units: int | None = None
    cruncher_id: str = ""

    @property
    def player(self) -> str:
        """Whose history this belongs to: the cruncher; the model itself where no cruncher is known."""
        return self.cruncher_id or self.model_id


class RoundClosedData(Data, frozen=True):
    """Every roster entry of one scope of a round, with its final status."""

    input_id: str
    scope_key: str
    subject: str
    point: int
    resolvable_at: int
    horizon_seconds: int
    rehearsal: bool
    contract_hash: str
    entries: list[ClosedEntry]


class RoundClosed(Event, frozen=True):
    """Nothing in this round and scope is open any more."""

    data: RoundClosedData


class ScoredUntilData(Data, frozen=True):
    """Every round with resolvable time < `until` is closed. `until` is a period boundary."""

    until: int
    rehearsal: bool


class ScoredUntil(Event, frozen=True):
    """The scores of all periods up to `until` are complete."""

    data: ScoredUntilData
