"""Events of `commands`: what people and tools ask for. Many writers, plain events without an envelope."""

from __future__ import annotations

import msgspec

from coordinator.streams.events.base import Data, Event
from coordinator.streams.events.checkpoints import CheckpointShares, EvidenceKeyData, ModelCorrection
from coordinator.streams.events.feeds import Blob, PostedQuestion, StakesPostedData


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
    """Please put these records of the past into the feed. Records that it already has change nothing."""

    data: RecordFeedData


class TermSettings(Data, frozen=True):
    """The settings of the node that are part of the terms, by the names of its settings."""

    feed_source: str
    feed_kind: str
    feed_granularity: str
    feed_subjects: list[str]
    snapshot_interval_seconds: int
    checkpoint_interval_seconds: int
    checkpoint_offset_seconds: int


class ApplyContractData(Data, frozen=True):
    """The contract, by its hash and its `module:attribute`. `archive` has everything that is needed to run it.

    `settings` are the node's settings that apply with it; None: those that are in force.
    """

    contract_hash: str
    path: str
    archive: bytes
    settings: TermSettings | None = None


class ApplyContract(Event, frozen=True):
    """Please use this contract from the next checkpoint period."""

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
    """The new status, CLAIMABLE or PAID, and the transaction that was observed, because the checkpoint may have another
    one by the time this is decided.
    """

    checkpoint_id: str
    status: str
    tx_hash: str


class AdvanceCheckpoint(Event, frozen=True):
    """Please set the next status of this checkpoint."""

    data: AdvanceCheckpointData


class BindPayeesData(Data, frozen=True):
    """The wallets of the models of an offered checkpoint. Wallets that are already bound stay, unless `replaces` is
    set.
    """

    checkpoint_id: str
    payees: dict[str, str]
    replaces: bool = False


class BindPayees(Event, frozen=True):
    """A request to record the payees."""

    data: BindPayeesData


class WithholdCheckpointData(Data, frozen=True):
    """A reason to hold back the checkpoint of the period that holds `period_at` (null: the next one)."""

    reason: str
    period_at: int | None = None


class WithholdCheckpoint(Event, frozen=True):
    """Please do not offer the next checkpoint."""

    data: WithholdCheckpointData


class ReleaseCheckpointData(Data, frozen=True):
    """The withheld checkpoint that may be offered after all."""

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
    shares: CheckpointShares | None = None
    """What the checkpoint pays out, as it was offered. The stage keeps a hash of it, and takes `paid` from it."""


class CorrectCheckpoint(Event, frozen=True):
    """Please record what this checkpoint should have paid, and let the next one carry what is owed."""

    data: CorrectCheckpointData


class PostQuestionsData(Data, frozen=True):
    """Questions of a round. A question that is already open and differs becomes a new revision."""

    round_id: str
    questions: list[PostedQuestion]


class PostQuestions(Event, frozen=True):
    """Please ask these questions."""

    data: PostQuestionsData


class CloseQuestionsData(Data, frozen=True):
    """The questions; none named: all of the round."""

    round_id: str
    question_ids: list[str] = []


class CloseQuestions(Event, frozen=True):
    """Please take no more answers to these questions."""

    data: CloseQuestionsData


class ResolveQuestionsData(Data, frozen=True):
    """question id -> its truth as JSON. A truth with another value than the one before is a correction."""

    round_id: str
    truths: dict[str, msgspec.Raw]
    again: bool = False
    """Whether a truth that is recorded already is recorded once more, so that its question is scored again: after a
    lost blob is back."""


class ResolveQuestions(Event, frozen=True):
    """Please record the truths of these questions."""

    data: ResolveQuestionsData


class VoidQuestionsData(Data, frozen=True):
    """The questions and the reason; none named: all of the round."""

    round_id: str
    reason: str
    question_ids: list[str] = []


class VoidQuestions(Event, frozen=True):
    """Please count these questions for nobody."""

    data: VoidQuestionsData


class PostStakes(Event, frozen=True):
    """Please use this table of stakes from now on."""

    data: StakesPostedData


class SubmittedAnswer(Data, frozen=True):
    """An answer to one scope of a question: `output` as JSON, or a blob."""

    question_id: str
    scope_key: str
    output: msgspec.Raw
    blob: Blob | None = None


class SubmitAnswersData(Data, frozen=True):
    """The answers of a participant without a hosted model to questions of a round. `sha256` is the hash of what was
    handed in.
    """

    round_id: str
    model_id: str
    cruncher_id: str
    answers: list[SubmittedAnswer]
    sha256: str


class SubmitAnswers(Event, frozen=True):
    """Please record these answers, which replace earlier ones of this model."""

    data: SubmitAnswersData


class RotateEvidenceKey(Event, frozen=True):
    """Please let the new key sign the notes about the log from now on."""

    data: EvidenceKeyData
