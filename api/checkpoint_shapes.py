"""The shapes of what is offered for payment. The protocol's own names stay: `reward_pct`, `crunchEmission`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from coordinator.api.shapes import Id, Naive, Shape, Status, Zulu

Frac64 = Annotated[int, Field(ge=0, le=1_000_000_000, examples=[350_000_000])]
"""A share in billionths: 350000000 is 35 %."""


Fraction01 = Annotated[float, Field(ge=0, le=1, examples=[0.385755688596095])]


class CruncherReward(Shape):
    """`cruncher_index` is the position in `meta.ranking`."""

    cruncher_index: int
    reward_pct: Frac64


class ProviderReward(Shape):
    """What a compute or data provider gets."""

    provider: str
    reward_pct: Frac64


class Emission(Shape):
    """Shares that sum to exactly 1,000,000,000 in each pool that is not empty."""

    crunch: str
    cruncher_rewards: list[CruncherReward]
    compute_provider_rewards: list[ProviderReward]
    data_provider_rewards: list[ProviderReward]


class RankedModel(Shape):
    """A paid place."""

    model_id: Id
    model_name: str
    cruncher_name: str
    rank: int
    prediction_count: int
    snapshot_count: int
    failed_count: int
    absent_count: int
    rounds_count: int
    result_summary: dict[str, float]
    checkpoint_score: float


class Move(Shape):
    """A status, and when it was reached."""

    status: str
    at: Zulu


class PoolShare(Shape):
    """A part of its pool, and the place in it."""

    model_id: Id
    rank: int
    share: Fraction01


class PoolPayout(Shape):
    """One pool: its part of the whole, its retained share, and the models that are not paid, with the reasons."""

    name: str
    share: Fraction01
    retained: Fraction01
    paid: list[PoolShare]
    unpaid: dict[str, list[Id]]


class PayoutMeta(Shape):
    """What the contract's rules pay. `retained_is` says what happens to the retained share on chain."""

    retained_frac64: Frac64
    retained_is: Literal["none", "withheld", "shared_out", "taken", "left"]
    pools: list[PoolPayout]


Amount = Annotated[int, Field(ge=0, examples=[97_370_000])]
"""Whole micro-USDC."""


class ModelAmount(Shape):
    """Whole micro-USDC of a model."""

    model_id: Id
    amount: Amount


class CreditsMeta(Shape):
    """What this checkpoint pays on top of its emission, for one earlier checkpoint that paid too little."""

    correction_id: str
    checkpoint_id: str
    reason: str
    prizes: list[ModelAmount]


class CorrectedModel(Shape):
    """What a model got by the emission, and what it should have got."""

    model_id: Id
    paid: Amount
    due: Amount


class CorrectionMeta(Shape):
    """What this checkpoint should have paid of a total of `total_prize`, by a correction; only models that differ."""

    correction_id: str
    at: Zulu
    reason: str
    total_prize: Amount
    models: list[CorrectedModel]
    contract_hash: str | None
    records_sha256: str | None


class MadeGood(Shape):
    """What a later checkpoint carries for this one."""

    checkpoint_id: str
    prizes: list[ModelAmount]


class OwedMeta(Shape):
    """By the latest correction: what the next checkpoint carries, and which models got too much, which they keep."""

    to_pay: list[ModelAmount]
    overpaid: list[ModelAmount]


class CheckpointMeta(Shape):
    """What the emission was made from."""

    snapshot_count: int
    model_count: int
    ranking: list[RankedModel]
    unranked: list[str]
    unranked_reasons: dict[str, str]
    contract_hash: str
    emission_contract_hash: str
    emission_sha256: str
    rehearsal: bool
    payout: PayoutMeta | None
    credits: list[CreditsMeta]
    corrections: list[CorrectionMeta]
    made_good: list[MadeGood]
    owed: OwedMeta
    moves: list[Move]


class Checkpoint(Shape):
    """A period's emission and how far its payment is. A withheld one carries its reason."""

    id: str
    period_start: Zulu
    period_end: Zulu
    status: Status
    reason: str | None
    entries: list[Emission]
    meta: CheckpointMeta
    created_at: Zulu
    tx_hash: str | None
    submitted_at: Zulu | None


class RankedEntry(Shape):
    """A place as the log has it: scores in units of the contract's decimals."""

    model_id: Id
    rank: int
    key_units: int
    prediction_count: int
    snapshot_count: int
    result_summary_units: dict[str, int]
    failed_count: int
    absent_count: int
    rounds_count: int
    cruncher_id: str
    counts: dict[str, int]
    first_point: int


class PoolParts(Shape):
    """A pool as the log has it: `paid` are [position in the ranking, rank, parts of 10**18]."""

    name: str
    weight: int
    paid: list[tuple[int, int, int]]
    retained_parts: int
    unpaid: dict[str, list[int]]


class PayoutParts(Shape):
    """The payout as the log has it."""

    pools: list[PoolParts]
    retained_frac64: Frac64
    retained_is: Literal["none", "withheld", "shared_out", "taken", "left"]


class CreditsParts(Shape):
    """Credits as the log has them: model_id -> whole micro-USDC."""

    correction_id: str
    checkpoint_id: str
    reason: str
    prizes: dict[str, int]


class CheckpointPayload(Shape):
    """All that a checkpoint is made of, as the log has it: times in ms, scores in units, shares in billionths."""

    checkpoint_id: str
    period_start: int
    period_end: int
    snapshot_count: int
    ranking: list[RankedEntry]
    unranked: list[str]
    emission: Emission
    emission_sha256: str
    contract_hash: str
    rehearsal: bool
    unranked_reasons: dict[str, str]
    emission_contract_hash: str
    payout: PayoutParts | None
    credits: list[CreditsParts]


class Reward(Shape):
    """One model's share of one checkpoint, flat, for charts."""

    checkpoint_id: str
    performed_at: Naive
    status: Status
    model_id: Id
    model_name: str
    cruncher_name: str
    rank: int
    reward_frac64: Frac64
    reward_percent: float


class LatestEmission(Shape):
    """The emission, and the checkpoint to which it belongs."""

    checkpoint_id: str
    status: Status
    period_start: Zulu
    period_end: Zulu
    emission: Emission
    emission_sha256: str


Percent = Annotated[
    Decimal,
    Field(ge=0, le=100, decimal_places=7),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100, "examples": [35.0000001]}),
]
"""A JSON number with 7 decimals, exact."""


class CliFormat(Shape):
    """Percentages by wallet that sum to exactly 100."""

    crunch: str
    crunchEmission: dict[str, Percent]  # noqa: N815 - the protocol's name
    computeProvider: dict[str, Percent]  # noqa: N815 - the protocol's name
    dataProvider: dict[str, Percent]  # noqa: N815 - the protocol's name


class Prize(Shape):
    """Whole micro-USDC."""

    prizeId: str  # noqa: N815 - the platform's name
    timestamp: int
    model: str
    prize: Annotated[int, Field(ge=0)]


class CreditPrize(Shape):
    """Whole micro-USDC on top: `parent` is the checkpoint that paid too little."""

    prizeId: str  # noqa: N815 - the platform's name
    timestamp: int
    model: str
    prize: Annotated[int, Field(gt=0)]
    parent: str
    reason: str


class Retained(Shape):
    """Whole micro-USDC that the contract's rules give to nobody."""

    prizeId: str  # noqa: N815 - the platform's name
    timestamp: int
    retained: Annotated[int, Field(gt=0)]


class Undecided(Shape):
    """The outcome of the command is not known yet; you can safely ask again."""

    detail: str
    command_id: str


class CommandState(Shape):
    """The outcome of a command. `status` is the new status of its checkpoint, `reason` why it was refused."""

    command_id: str
    state: Literal["done", "refused", "undecided"]
    checkpoint_id: str | None
    status: Status | None
    reason: str | None
