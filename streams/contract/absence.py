"""The values of `CrunchContract.absence_policy` that have a number: a fixed score, or a percentile of the round.

The score stage reads them to compute the charge for a missing answer (`streams/scores/charges.py`).
"""

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
    """25: a quarter of the round's scores are equal or worse."""
