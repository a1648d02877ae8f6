"""What a missing answer counts as, where the contract names a score."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AbsenceConstant(_Strict):
    """A missing answer counts as this score."""

    value: float = Field(allow_inf_nan=False)
    """The score that a missing answer counts as."""


class AbsencePercentile(_Strict):
    """A missing answer counts as this percentile of the round's scores, from the worse end (nearest rank)."""

    percent: float = Field(gt=0, le=100)
    """25: a quarter of the round's scores are no better."""
