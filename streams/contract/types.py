"""The default types of a contract (records, input, output, ground truth, score), and the emission as the chain has it.

The stages validate what a contract's functions return by these types, or by those that its author names instead.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from coordinator.streams.contract.emission import FRAC64_ONE


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RawInput(BaseModel):
    """One feed record, as the contract's functions get it. Override it with Decimal values if floats are too coarse."""

    source: str
    """The source of the record: `binance`."""
    subject: str
    """The subject of the record: `BTCUSDT`."""
    kind: str
    """`candle` or `tick`, or a kind of your own source."""
    granularity: str
    """The time between records: `1m`."""
    ts_event: int
    """When the record began, in ms since the epoch: the opening time of a candle."""
    at: int
    """When the record became known, in ms since the epoch: the closing time of a candle. No input of an earlier point
    contains it."""
    values: dict[str, float]
    """Name -> number. A candle has `open`, `high`, `low`, `close`, `volume`; a tick has `price`."""


class ModelInput(BaseModel):
    """What a model's `tick` receives: `candles` or `ticks`, oldest first."""

    model_config = ConfigDict(extra="allow")
    symbol: str
    """The subject: `BTCUSDT`."""
    asof_ts: int
    """The point of the round, in ms since the epoch."""


class InferenceOutput(BaseModel):
    """A model's answer: `value` is a signed confidence. Scoring clips it to [-1, 1]."""

    value: float
    """In [-1, 1]: -1 is certainly down, 0 no opinion, 1 certainly up."""


class GroundTruth(BaseModel):
    """The change of the price from entry to horizon."""

    model_config = ConfigDict(extra="allow")
    entry_price: float
    """The price at the point of the round."""
    resolved_price: float
    """The price at the horizon."""
    return_: float = Field(alias="return")
    """The change as a fraction of the entry price: 0.001 is 0.1 %. Its name in JSON is `return`."""
    direction_up: bool
    """True if the return is above 0."""


class ScoreResult(BaseModel):
    """One score. A subclass may add numeric fields; each is recorded and averaged."""

    value: float
    """The score. More is better, unless `aggregation.ranking_direction` says otherwise."""
    success: bool = True
    """False: this answer gets no score."""
    failed_reason: str | None = None
    """The reason for no score. It is recorded and shown."""


class CruncherReward(_Strict):
    """`reward_pct` is the protocol's name for frac64: billionths of the pool."""

    cruncher_index: int = Field(ge=0, lt=65536)
    """The position of the model in the ranked entries, from 0."""
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)
    """The share in billionths."""


class ProviderReward(_Strict):
    """A provider's share in frac64."""

    provider: str
    """The address of the provider (base58)."""
    reward_pct: int = Field(gt=0, le=FRAC64_ONE)
    """The share in billionths."""


class EmissionCheckpoint(_Strict):
    """The emission in the shape of the on-chain protocol."""

    crunch: str
    """The address of the crunch (base58)."""
    cruncher_rewards: list[CruncherReward]
    """The shares of the models; they sum to exactly 1,000,000,000."""
    compute_provider_rewards: list[ProviderReward] = []
    """The shares of those who run the models: empty, or with the same sum."""
    data_provider_rewards: list[ProviderReward] = []
    """The shares of those who provide the data: empty, or with the same sum."""


@cache
def validator(model: type[BaseModel]) -> Any:
    """The function behind `model.model_validate`. Called directly it takes half the time, since it has no keyword
    arguments to handle.
    """
    return TypeAdapter(model).validator.validate_python
