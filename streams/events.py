"""The events: what may stand in our topics, and nothing else may.

The class names and fields below are the stored format (money's format). An event is never edited;
a field may be added with a default; any other change is a new version `v` with an upcaster in
`envelope.py` and a golden file in `tests/core/golden/`.

Every event is `{kind, id, at, v, data}`. `id` comes from content, never from chance. `at` is event time
in ms: when the fact became known. Times are Unix ms, durations carry their unit in the name.
A score is an integer number of units of 10**-score_decimals (see `units.py`): it sums exactly.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Fault = Literal["model", "node"]
FinalStatus = Literal["SCORED", "FAILED", "ABSENT"]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag=True):
    """What every event carries; `kind` is the class name.

    Events hold plain data and so can be in no cycle: `gc=False` spares the collector hundreds of thousands of them.
    """

    id: str
    at: int
    v: Literal[1] = 1


class Data(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of one event."""


# --- birth: whose topic this is ------------------------------------------------------------------------


class TopicBornData(Data, frozen=True):
    """Whose topic this is. `format` is the envelope's version; `birth_id` is the same in all topics of a crunch.

    `before` is the birth id of the log whose records were copied in behind this one, empty for a new crunch.
    """

    crunch_id: str
    topic: str
    format: int
    birth_id: str
    before: str = ""


class TopicBorn(Event, frozen=True):
    """The first record of each topic. It is about the topic: it counts as nothing, and no stage sees it."""

    data: TopicBornData


# --- terms: under which rules the rest was decided -----------------------------------------------------


class Feed(Data, frozen=True):
    """The one feed whose records make inputs and ground truth; the subject is named apart."""

    source: str
    kind: str
    granularity: str


class Scope(Data, frozen=True):
    """What one prediction is about. `interval_seconds` is the grid on which it is asked."""

    scope_key: str
    subject: str
    horizon_seconds: int
    step_seconds: int
    interval_seconds: int
    order: int = 0


class Window(Data, frozen=True):
    """A named trailing window of the leaderboard."""

    name: str
    hours: int


class Terms(Data, frozen=True):
    """The declarative half of a contract plus the node's intervals, as one fact."""

    contract_hash: str
    crunch_pubkey: str | None
    feed: Feed
    subjects: list[str]
    scopes: list[Scope]
    windows: list[Window]
    ranking_key: str
    checkpoint_key: str
    ranking_direction: Literal["asc", "desc"]
    value_field: str
    score_decimals: int
    scoring_hash: str
    """What a score means: of the code that makes one, its type and its `value_field`. Sums never mix two of these."""
    deadline_ms: int
    grace_ms: int
    output_max_bytes: int
    absence_policy: Literal["ignore", "zero", "worst_percentile"]
    min_participation: float
    newcomer_excuse_max: float
    snapshot_interval_ms: int
    checkpoint_interval_ms: int
    checkpoint_offset_ms: int
    """Checkpoint periods begin at multiples of the interval since 1970-01-01, a Thursday, 00:00 UTC, plus this."""
    effective_from: int
    answers_hidden_until: Literal["resolvable", "recorded"] = "resolvable"
    goes_on: bool = False
    """They change only what is asked (feed, subjects, scopes), at once: no running period ends where they begin."""


class CrunchConfigured(Event, frozen=True):
    """New terms hold from `effective_from` on. Passed on unchanged into every topic downstream."""

    data: Terms


# --- feeds ---------------------------------------------------------------------------------------------


class FeedRecordData(Data, frozen=True):
    """One record. `ts_event` is its own time (a candle's open); `at` of the event is when it was known."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: int
    values: dict[str, str]
    revision: int = 0
    backfilled: bool = False


class FeedRecordReceived(Event, frozen=True):
    """A feed delivered a record."""

    data: FeedRecordData


class FeedGapData(Data, frozen=True):
    """Records expected with from_ms < at <= until_ms did not come."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    reason: str


class FeedGapFound(Event, frozen=True):
    """A hole in a feed was found."""

    data: FeedGapData


class FeedGapClosedData(Data, frozen=True):
    """No more records with from_ms < at <= until_ms will come. `complete`: all of them are there now."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    complete: bool
    reason: str


class FeedGapClosed(Event, frozen=True):
    """A hole in a feed was filled, or is known to stay."""

    data: FeedGapClosedData


class FeedStateChangedData(Data, frozen=True):
    """How a source's live side stands: connecting, connected, reconnecting, ended; and why it is not connected."""

    source: str
    state: str
    reason: str


class FeedStateChanged(Event, frozen=True):
    """A source was connected, or lost its connection."""

    data: FeedStateChangedData


class ClockTickedData(Data, frozen=True):
    """`rehearsal`: the time is replayed, not lived."""

    rehearsal: bool


class ClockTicked(Event, frozen=True):
    """It is now `at`: every source has delivered up to it, or has said that it has a gap."""

    data: ClockTickedData


# --- inputs --------------------------------------------------------------------------------------------


class InputScope(Data, frozen=True):
    """One scope asked of an input, with the time at which its truth is known."""

    scope_key: str
    horizon_seconds: int
    step_seconds: int
    resolvable_at: int


class InputReceivedData(Data, frozen=True):
    """`payload` is what the models will see, as JSON. `point` is the grid time it stands for."""

    input_id: str
    subject: str
    point: int
    deadline_at: int
    scopes: list[InputScope]
    contract_hash: str
    rehearsal: bool
    payload: msgspec.Raw


class InputReceived(Event, frozen=True):
    """An input was cut from the feed: RECEIVED."""

    data: InputReceivedData


class InputResolvedData(Data, frozen=True):
    """The ground truth of one horizon, or the reason why there is none. `last`: the input is now RESOLVED."""

    input_id: str
    horizon_seconds: int
    resolvable_at: int
    truth: dict[str, Any] | None
    reason: str | None
    last: bool


class InputResolved(Event, frozen=True):
    """The future of an input has happened, for one horizon."""

    data: InputResolvedData


class GapSpan(Data, frozen=True):
    """Records with from_ms < at <= until_ms were not there."""

    from_ms: int
    until_ms: int


class InputOpenedOverGapData(Data, frozen=True):
    """The holes in what the models of this input are shown."""

    input_id: str
    subject: str
    point: int
    gaps: list[GapSpan]


class InputOpenedOverGap(Event, frozen=True):
    """An input was opened while records of its window were missing; its predictions stand, and this says so."""

    data: InputOpenedOverGapData


class SkippedPoints(Data, frozen=True):
    """Grid points from_point..until_point (inclusive) of one scope that were never opened."""

    subject: str
    scope_key: str
    from_point: int
    until_point: int
    count: int
    reason: str


class InputsUntilData(Data, frozen=True):
    """Every (input, horizon) with resolvable time < `until` is resolved, and no more will open."""

    until: int
    clock: int
    rehearsal: bool
    skipped: list[SkippedPoints]


class InputsUntil(Event, frozen=True):
    """The watermark of the inputs moved."""

    data: InputsUntilData


# --- predictions and models ----------------------------------------------------------------------------


class RosterEntry(Data, frozen=True):
    """A model that was asked."""

    model_id: str
    deployment_id: str
    cruncher_id: str = ""
    """Whose model it is; empty where the orchestrator does not say."""


class RoundOpenedData(Data, frozen=True):
    """Who is asked, before the first call. The round's id is its input's."""

    input_id: str
    roster: list[RosterEntry]
    scope_keys: list[str]
    clock: int
    contract_hash: str
    models_seq: int
    """The last decision of `models` that the roster knows: whoever reads both can tell whom it had to name."""


class RoundOpened(Event, frozen=True):
    """A round of predictions began."""

    data: RoundOpenedData


class PredictionRecordedData(Data, frozen=True):
    """A valid answer; `output` is plain JSON of the contract's output type."""

    input_id: str
    scope_key: str
    model_id: str
    deployment_id: str
    output: dict[str, Any]
    exec_time_us: int


class PredictionRecorded(Event, frozen=True):
    """A model answered in time: PENDING."""

    data: PredictionRecordedData


class PredictionMissedData(Data, frozen=True):
    """Why there is no valid answer, and whose fault it is."""

    input_id: str
    scope_key: str
    model_id: str
    deployment_id: str
    reason: str
    fault: Fault
    exec_time_us: int = 0


class PredictionAbsent(Event, frozen=True):
    """A model on the roster did not answer: ABSENT."""

    data: PredictionMissedData


class PredictionFailed(Event, frozen=True):
    """A model answered badly: FAILED."""

    data: PredictionMissedData


class RoundAnsweredInPartData(Data, frozen=True):
    """The models whose events for every scope stand before this one, in this same decision."""

    input_id: str
    model_ids: list[str]
    clock: int


class RoundAnsweredInPart(Event, frozen=True):
    """Some models of a round are recorded while others are still asked."""

    data: RoundAnsweredInPartData


class RoundAnsweredData(Data, frozen=True):
    """Every roster entry of every scope has its event now, in this decision or in a part before it."""

    input_id: str
    clock: int


class RoundAnswered(Event, frozen=True):
    """A round of predictions is complete."""

    data: RoundAnsweredData


class ModelSeenData(Data, frozen=True):
    """Who a model is."""

    model_id: str
    model_name: str
    deployment_id: str
    cruncher_id: str
    cruncher_name: str
    wallet_pubkey: str = ""
    hotkey: str = ""


class ModelSeen(Event, frozen=True):
    """A model runs, for the first time or under a new deployment or name."""

    data: ModelSeenData


class ModelLeftData(Data, frozen=True):
    """Which deployment of which model stopped for good."""

    model_id: str
    deployment_id: str
    reason: str


class ModelLeft(Event, frozen=True):
    """A model was stopped; it is on no roster from now on."""

    data: ModelLeftData


class ModelBannedData(Data, frozen=True):
    """The operator's word."""

    model_id: str
    reason: str


class ModelBanned(Event, frozen=True):
    """The operator took a model off the roster."""

    data: ModelBannedData


class ModelReadmittedData(Data, frozen=True):
    """The operator's word."""

    model_id: str
    reason: str


class ModelReadmitted(Event, frozen=True):
    """The operator lifted a ban; the model is asked again as soon as it runs."""

    data: ModelReadmittedData


class ModelFailureData(Data, frozen=True):
    """What was reported to the orchestrator."""

    model_id: str
    deployment_id: str
    code: str
    reason: str


class ModelFailureReported(Event, frozen=True):
    """A model's failure was reported to the orchestrator."""

    data: ModelFailureData


# --- scores --------------------------------------------------------------------------------------------


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


# --- snapshots -----------------------------------------------------------------------------------------


class FieldSum(msgspec.Struct, frozen=True, array_like=True):
    """[sum in units, n]: a mean is one division."""

    sum_units: int
    n: int


class SnapshotTakenData(Data, frozen=True):
    """One model in one period [period_start, period_end). Counts are of (round, scope) pairs.

    `failed_node_count` of the `failed_count` are the node's fault (no ground truth, a scoring function that raised).
    """

    snapshot_id: str
    model_id: str
    period_start: int
    period_end: int
    sums: dict[str, FieldSum]
    summary_units: dict[str, int]
    windows_units: dict[str, int | None]
    scored_count: int
    failed_count: int
    absent_model_count: int
    absent_node_count: int
    charged_count: int
    rehearsal: bool
    contract_hash: str
    summary_error: str = ""
    rehearsal_windows: list[str] = []
    failed_node_count: int = 0
    cruncher_id: str = ""
    """Whose model it is, as the newest round says; empty where the orchestrator does not say."""
    first_point: int = 0
    """The point (ms) of the first round that any model of the same cruncher was ever asked in."""
    rounds_count: int = 0
    """The period's (round, scope) pairs that some model could answer, without those that this one missed by the node's
    fault; it need not have been asked: who comes late or has left misses them."""

    @property
    def player(self) -> str:
        """Whose history this belongs to: the cruncher; the model itself where no cruncher is known."""
        return self.cruncher_id or self.model_id


class SnapshotTaken(Event, frozen=True):
    """A model's period was summed up."""

    data: SnapshotTakenData


class PointCount(msgspec.Struct, frozen=True, array_like=True):
    """[point in ms, how many (round, scope) pairs were asked at it]."""

    point: int
    n: int


class PeriodClosedData(Data, frozen=True):
    """Periods in [from_ms, until_ms) are closed; a run of empty ones is one event (snapshot_count 0)."""

    from_ms: int
    until_ms: int
    snapshot_count: int
    rehearsal: bool
    rounds_count: int = 0
    """(round, scope) pairs of the period that some model could answer."""
    asked_before: list[PointCount] = []
    """Those of them that were asked before the checkpoint period began, by point: a newcomer may be excused them."""
    other_scoring_count: int = 0
    """(round, scope) pairs that were asked, and are scored, by a scoring that the period does not have: in no sum."""


class PeriodClosed(Event, frozen=True):
    """No snapshot will come for these periods any more."""

    data: PeriodClosedData


# --- checkpoints ---------------------------------------------------------------------------------------


class RankedEntry(Data, frozen=True):
    """A place in `meta.ranking`; its position in the list is the emission's cruncher_index."""

    model_id: str
    rank: int
    key_units: int
    prediction_count: int
    snapshot_count: int
    result_summary_units: dict[str, int]
    failed_count: int = 0
    absent_count: int = 0
    rounds_count: int = 0
    """All rounds of the period, without the node's faults and what a newcomer is excused: what participation is of."""


class CheckpointData(Data, frozen=True):
    """What is offered for payment. `emission_json` are the exact bytes; `emission_sha256` is over them."""

    checkpoint_id: str
    period_start: int
    period_end: int
    snapshot_count: int
    ranking: list[RankedEntry]
    unranked: list[str]
    emission: dict[str, Any]
    emission_sha256: str
    contract_hash: str
    rehearsal: bool
    unranked_reasons: dict[str, str] = {}
    emission_contract_hash: str = ""
    """The contract that made the emission, where that is told: a release may need a mended one."""


class CheckpointOpened(Event, frozen=True):
    """A period's emission is offered for payment: PENDING."""

    data: CheckpointData


class CheckpointWithheldData(Data, frozen=True):
    """Why the checkpoint is not offered."""

    reason: str
    checkpoint: CheckpointData


class CheckpointWithheld(Event, frozen=True):
    """A period's emission was built but must not be paid yet: WITHHELD."""

    data: CheckpointWithheldData


class PayeesBoundData(Data, frozen=True):
    """Where each of these models is paid by this checkpoint: model_id -> wallet."""

    checkpoint_id: str
    payees: dict[str, str]
    command_id: str


class PayeesBound(Event, frozen=True):
    """Who is paid was written down; an edit of a wallet moves this payment no more."""

    data: PayeesBoundData


class CheckpointSubmittedData(Data, frozen=True):
    """The operator signed: the transaction's hash (base58, 64 bytes)."""

    checkpoint_id: str
    tx_hash: str
    command_id: str


class CheckpointSubmitted(Event, frozen=True):
    """PENDING -> SUBMITTED."""

    data: CheckpointSubmittedData


class CheckpointSubmissionFailedData(Data, frozen=True):
    """The transaction finally failed; its hash stays refused."""

    checkpoint_id: str
    tx_hash: str
    reason: str
    command_id: str


class CheckpointSubmissionFailed(Event, frozen=True):
    """SUBMITTED -> PENDING."""

    data: CheckpointSubmissionFailedData


class CheckpointAdvancedData(Data, frozen=True):
    """Which command moved it."""

    checkpoint_id: str
    command_id: str


class CheckpointClaimable(Event, frozen=True):
    """SUBMITTED -> CLAIMABLE."""

    data: CheckpointAdvancedData


class CheckpointPaid(Event, frozen=True):
    """CLAIMABLE -> PAID."""

    data: CheckpointAdvancedData


class CommandRefusedData(Data, frozen=True):
    """Why nothing was done. `http_status` is what the API answers (404, 409, 422)."""

    command_id: str
    command_kind: str
    checkpoint_id: str
    reason: str
    state: str
    http_status: int


class CommandRefused(Event, frozen=True):
    """A command met a state in which it is not legal; nothing changed."""

    data: CommandRefusedData


# --- commands and dead letters: many writers, plain events without an envelope --------------------------


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


class DeadLetteredData(Data, frozen=True):
    """Garbage from outside: where it came from, why it was refused, its hash and its first 1,000 characters."""

    origin: str
    position: str
    reason: str
    sha256: str
    head: str


class DeadLettered(Event, frozen=True):
    """Something from outside could not be read and was set aside."""

    data: DeadLetteredData


AnyEvent = (
    TopicBorn
    | CrunchConfigured
    | FeedRecordReceived
    | FeedGapFound
    | FeedGapClosed
    | FeedStateChanged
    | ClockTicked
    | InputReceived
    | InputOpenedOverGap
    | InputResolved
    | InputsUntil
    | RoundOpened
    | PredictionRecorded
    | PredictionAbsent
    | PredictionFailed
    | RoundAnsweredInPart
    | RoundAnswered
    | ModelSeen
    | ModelLeft
    | ModelBanned
    | ModelReadmitted
    | ModelFailureReported
    | PredictionScored
    | ScoringFailed
    | RoundClosed
    | ScoredUntil
    | SnapshotTaken
    | PeriodClosed
    | CheckpointOpened
    | CheckpointWithheld
    | PayeesBound
    | CheckpointSubmitted
    | CheckpointSubmissionFailed
    | CheckpointClaimable
    | CheckpointPaid
    | CommandRefused
    | ConfirmCheckpoint
    | AdvanceCheckpoint
    | BindPayees
    | WithholdCheckpoint
    | ReleaseCheckpoint
    | FailCheckpointSubmission
    | RecordFeed
    | ApplyContract
    | BanModel
    | ReadmitModel
    | DeadLettered
)
