"""Events of `checkpoints`: what is offered for payment, and its statuses up to PAID."""

from __future__ import annotations

from typing import Any, Literal

from coordinator.streams.events.base import Data, Event


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
    """All rounds of the period, without those that failed by the node's fault and those from which a newcomer is
    excused. Participation is a share of these."""
    cruncher_id: str = ""
    """The cruncher that the model belongs to; empty if the orchestrator does not say."""
    counts: dict[str, int] = {}
    """Board -> number of the period's scores in its scopes; window that is not a plain mean -> number of its scores at
    the period's end."""
    first_point: int = 0
    """The point (ms) of the first round in which any model of the same player was asked."""


class PoolPaid(Data, frozen=True):
    """One pool in parts of 10**18: those paid and the retained one sum to exactly that."""

    name: str
    weight: int
    """Its share of the total: its weight divided by the sum of all pools' weights."""
    paid: list[tuple[int, int, int]]
    """(position in the ranking, rank in the pool, parts), best first."""
    retained_parts: int
    unpaid: dict[str, list[int]] = {}
    """Reason for no pay -> positions in the ranking."""


class PayoutData(Data, frozen=True):
    """What the contract's rules pay, exactly, and what they retain."""

    pools: list[PoolPaid]
    retained_frac64: int
    """What the pools do not pay of 1,000,000,000, before it is assigned."""
    retained_is: Literal["none", "withheld", "shared_out", "taken", "left"]
    """What happens to that on chain. `left`: the emission sums to less, and is paid only as prizes."""


class Credits(Data, frozen=True):
    """What a checkpoint pays on top of its emission, as separate prizes, because an earlier one paid too little."""

    correction_id: str
    checkpoint_id: str
    """The parent: the checkpoint that paid too little."""
    reason: str
    prizes: dict[str, int]
    """model_id -> whole micro-USDC."""


class CheckpointData(Data, frozen=True):
    """What is offered for payment. `emission_json` has the exact bytes; `emission_sha256` is their hash."""

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
    """The contract that made the emission, if recorded. A release may have needed a corrected one."""
    payout: PayoutData | None = None
    """The payout of a contract that pays by rules."""
    credits: list[Credits] = []
    """One entry for each earlier checkpoint whose debt is paid here. They are not part of the emission and its hash."""


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
    """The payees were recorded. A later edit of a wallet does not affect this payment."""

    data: PayeesBoundData


class CheckpointSubmittedData(Data, frozen=True):
    """The hash of the transaction that the operator signed (base58, 64 bytes)."""

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
    """The command that changed the status."""

    checkpoint_id: str
    command_id: str


class CheckpointClaimable(Event, frozen=True):
    """SUBMITTED -> CLAIMABLE."""

    data: CheckpointAdvancedData


class CheckpointPaid(Event, frozen=True):
    """CLAIMABLE -> PAID."""

    data: CheckpointAdvancedData


class ModelCorrection(Data, frozen=True):
    """One model, in whole micro-USDC: what its checkpoint's own emission gave it, and what it should have given."""

    model_id: str
    paid: int
    due: int


class CheckpointShares(Data, frozen=True):
    """The part of a checkpoint from which the amounts of money follow."""

    model_ids: list[str]
    """By place in the ranking."""
    rewards: list[tuple[int, int]]
    """(place, frac64) by place; empty where `pools` pay."""
    pools: list[PoolPaid] = []
    """The pools of a contract that pays by rules."""


class CheckpointCorrectedData(Data, frozen=True):
    """What a checkpoint should have paid. If a checkpoint has several corrections, the latest counts."""

    correction_id: str
    """Derived from the checkpoint, the pool and the amounts: the same statement again has the same id."""
    checkpoint_id: str
    total_prize: int
    """The total that it paid, in whole micro-USDC. The amounts are shares of it."""
    models: list[ModelCorrection]
    """By model_id, only those whose amounts differ."""
    reason: str
    command_id: str
    contract_hash: str = ""
    """The contract with which it was computed again; empty: its own."""
    records_sha256: str = ""
    """The hash of the operator's file of corrected records, if there was one."""


class CheckpointCorrected(Event, frozen=True):
    """A checkpoint that was offered or paid should have paid other amounts. The next one carries what is still owed."""

    data: CheckpointCorrectedData


class EvidenceKeyData(Data, frozen=True):
    """The key that signed the notes about the log so far, the one that signs from now on, and the signature of each
    over the same statement (`streams/signing/rotation.py`), in base64.
    """

    old_key: str
    new_key: str
    old_signature: str
    new_signature: str


class EvidenceKeyRotatedData(EvidenceKeyData, frozen=True):
    """The same, and the command that asked for it."""

    command_id: str


class EvidenceKeyRotated(Event, frozen=True):
    """The new key signs every note about a tree that holds this event."""

    data: EvidenceKeyRotatedData


class CommandRefusedData(Data, frozen=True):
    """Why nothing was done. `http_status` is the status that the API answers (404, 409, 422)."""

    command_id: str
    command_kind: str
    checkpoint_id: str
    reason: str
    state: str
    http_status: int


class CommandRefused(Event, frozen=True):
    """A command was not legal in the state at that time; nothing changed."""

    data: CommandRefusedData
