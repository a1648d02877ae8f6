"""The types that a contract has unless its author names others, and the emission in the shape of the chain."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from coordinator.streams.contract.emission import FRAC64_ONE


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RawInput(BaseModel):
    """One feed record as the callables get it. Override with Decimal values where floats lose too much."""

    source: str
    """Where it came from: `binance`."""
    subject: str
    """What it is about: `BTCUSDT`."""
    kind: str
    """`candle` or `tick`, or what a source of your own says."""
    granularity: str
    """How far apart records are: `1m`."""
    ts_event: int
    """When it began, in ms since the epoch: a candle's opening time."""
    at: int
    """When it was known, in ms since the epoch: a candle's closing time. No input of an earlier point holds it."""
    values: dict[str, float]
    """Its numbers by name: of a candle `open`, `high`, `low`, `close`, `volume`; of a tick `price`."""


class ModelInput(BaseModel):
    """What a model's `tick` receives: `candles` or `ticks`, oldest first."""

    model_config = ConfigDict(extra="allow")
    symbol: str
    """The subject: `BTCUSDT`."""
    asof_ts: int
    """The round's point, in ms since the epoch."""


class InferenceOutput(BaseModel):
    """A model's answer: `value` in [-1, 1] is a signed confidence; beyond is clipped by the scoring."""

    value: float
    """In [-1, 1]: -1 is surely down, 0 no opinion, 1 surely up."""


class GroundTruth(BaseModel):
    """What happened between entry and horizon."""

    model_config = ConfigDict(extra="allow")
    entry_price: float
    """The price at the round's point."""
    resolved_price: float
    """The price at the horizon."""
    return_: float = Field(alias="return")
    """The change as a fraction of the entry price: 0.001 is a tenth of a percent. Written `return` in JSON."""
    direction_up: bool
    """Is the return above 0?"""


class ScoreResult(BaseModel):
    """One score. More numeric fields may be added in a subclass; each is recorded and averaged."""

    value: float
    """The score. More is better, unless `aggregation.ranking_direction` says otherwise."""
    success: bool = True
    """False: this answer deserves no score."""
    failed_reason: str | None = None
    """Why not: recorded and shown."""


class CruncherReward(_Strict):
    """`reward_pct` is the protocol's name for frac64: billionths of the pool."""

    cruncher_index: int = Field(ge=0, lt=65536)
    """The entry's place in the ranked entries, from 0."""
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)
    """Its share in billionths."""


class ProviderReward(_Strict):
    """A provider's share in frac64."""

    provider: str
    """Its address (base58)."""
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)
    """Its share in billionths."""


class EmissionCheckpoint(_Strict):
    """The emission in the shape of the on-chain protocol."""

    crunch: str
    """The crunch's address (base58)."""
    cruncher_rewards: list[CruncherReward]
    """The shares of the models; they sum to exactly 1,000,000,000."""
    compute_provider_rewards: list[ProviderReward] = []
    """Those of who runs the models: empty, or of the same sum."""
    data_provider_rewards: list[ProviderReward] = []
    """Those of who gives the data: empty, or of the same sum."""
