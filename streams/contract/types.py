"""The types that a contract has unless its author names others, and the emission in the shape of the chain."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from coordinator.streams.contract.emission import FRAC64_ONE


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RawInput(BaseModel):
    """One feed record as the callables get it. Override with Decimal values where floats lose too much."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: int
    at: int
    values: dict[str, float]


class ModelInput(BaseModel):
    """What a model's `tick` receives: `candles` or `ticks`, oldest first."""

    model_config = ConfigDict(extra="allow")
    symbol: str
    asof_ts: int


class InferenceOutput(BaseModel):
    """A model's answer: `value` in [-1, 1] is a signed confidence; beyond is clipped by the scoring."""

    value: float


class GroundTruth(BaseModel):
    """What happened between entry and horizon."""

    model_config = ConfigDict(extra="allow")
    entry_price: float
    resolved_price: float
    return_: float = Field(alias="return")
    direction_up: bool


class ScoreResult(BaseModel):
    """One score. More numeric fields may be added in a subclass; each is recorded and averaged."""

    value: float
    success: bool = True
    failed_reason: str | None = None


class CruncherReward(_Strict):
    """`reward_pct` is the protocol's name for frac64: billionths of the pool."""

    cruncher_index: int = Field(ge=0, lt=65536)
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)


class ProviderReward(_Strict):
    """A provider's share in frac64."""

    provider: str
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)


class EmissionCheckpoint(_Strict):
    """The emission in the shape of the on-chain protocol."""

    crunch: str
    cruncher_rewards: list[CruncherReward]
    compute_provider_rewards: list[ProviderReward] = []
    data_provider_rewards: list[ProviderReward] = []
