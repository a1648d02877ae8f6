"""Events of `commands`: what people and tools ask for. Many writers, plain events without an envelope."""

from __future__ import annotations

from coordinator.streams.events.base import Data, Event
from coordinator.streams.events.checkpoints import ModelCorrection


class GivenRecord(Data, frozen=True):
    """One record from history: `ts_event` is its own time, `at` when it was known, in ms; decimals as text."""

    ts_event: int
    at: int
    values: dict[str, str]
    revision: int = 0


class RecordFeedData(Data, frozen=True):
    """Records of one subscription, oldest first."""

    source: str
    subject: str
    kind: str
    granularity: str
    records: list[GivenRecord]


class RecordFeed(Event, frozen=True):
    """Please put these records of the past into the feed; those that stand there already change nothing."""

    data: RecordFeedData


class ApplyContractData(Data, frozen=True):
    """Which one, by its hash and its `module:attribute`; `archive` is all that is needed to run it."""

    contract_hash: str
    path: str
    archive: bytes


class ApplyContract(Event, frozen=True):
    """Please go by this contract from the next checkpoint period on."""

    data: ApplyContractData


class BanModelData(Data, frozen=True):
    """Whom, and why."""

    model_id: str
    reason: str


class BanModel(Event, frozen=True):
    """Please take this model off the roster."""

    data: BanModelData


class ReadmitModelData(Data, frozen=True):
    """Whom, and why."""

    model_id: str
    reason: str


class ReadmitModel(Event, frozen=True):
    """Please lift this model's ban."""

    data: ReadmitModelData


class ConfirmCheckpointData(Data, frozen=True):
    """The operator says which transaction pays the checkpoint."""

    checkpoint_id: str
    tx_hash: str


class ConfirmCheckpoint(Event, frozen=True):
    """Please record this transaction."""

    data: ConfirmCheckpointData


class AdvanceCheckpointData(Data, frozen=True):
    """The status wanted: CLAIMABLE or PAID; and of which transaction that was seen, for the checkpoint may have another
    one by the time this is decided.
    """

    checkpoint_id: str
    status: str
    tx_hash: str


class AdvanceCheckpoint(Event, frozen=True):
    """Please move this checkpoint on."""

    data: AdvanceCheckpointData


class BindPayeesData(Data, frozen=True):
    """Where models of an offered checkpoint are paid. Unless it `replaces`, what is bound already stays."""

    checkpoint_id: str
    payees: dict[str, str]
    replaces: bool = False


class BindPayees(Event, frozen=True):
    """Please write down who is paid."""

    data: BindPayeesData


class WithholdCheckpointData(Data, frozen=True):
    """A reason to hold back the checkpoint of the period that holds `period_at` (null: the next one)."""

    reason: str
    period_at: int | None = None


class WithholdCheckpoint(Event, frozen=True):
    """Please do not offer the next checkpoint."""

    data: WithholdCheckpointData


class ReleaseCheckpointData(Data, frozen=True):
    """Which withheld checkpoint may be offered after all."""

    checkpoint_id: str
    reason: str = ""


class ReleaseCheckpoint(Event, frozen=True):
    """Please offer this withheld checkpoint."""

    data: ReleaseCheckpointData


class FailCheckpointSubmissionData(Data, frozen=True, omit_defaults=True):
    """The transaction that finally failed. `replaced_by`: another one pays this checkpoint already, so that it must
    not be offered again in between.
    """

    checkpoint_id: str
    tx_hash: str
    reason: str
    replaced_by: str = ""


class FailCheckpointSubmission(Event, frozen=True):
    """Please take back a submission whose transaction finally failed."""

    data: FailCheckpointSubmissionData


class CorrectCheckpointData(Data, frozen=True):
    """What a checkpoint should have paid, as in `CheckpointCorrected`."""

    checkpoint_id: str
    total_prize: int
    models: list[ModelCorrection]
    reason: str
    contract_hash: str = ""
    records_sha256: str = ""


class CorrectCheckpoint(Event, frozen=True):
    """Please record what this checkpoint should have paid, and let the next one carry what is owed."""

    data: CorrectCheckpointData
