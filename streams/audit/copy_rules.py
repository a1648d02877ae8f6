"""What a pair of models with similar answers is: thresholds and evidence. `copies.py` finds them, with numpy."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["equal", "scaled", "lagged", "noisy"]

DIGITS = 12
SCALED_MIN = 1 - 1e-9
LAGS = 5
DISTINCT_MIN = 5
"""A straight line always fits two points, and two coins agree half of the time."""


class CopyRules(msgspec.Struct, frozen=True):
    """The thresholds for a pair to be reported. `common_min`: how many rounds both must have answered."""

    common_min: int = 30
    equal_share_min: float = 0.9
    correlation_min: float = 0.99


RULES = CopyRules()


class CopyFound(msgspec.Struct, frozen=True):
    """One pair with its evidence.

    `lag`: `later` answers in round t what `earlier` answered in round t - lag. With lag 0 neither was first, and the
    two are in the order of their ids. `scale`: later = scale * earlier + a constant, by least squares. `common`: how
    many rounds both answered. `equal_share`: the share of these in which both agree to DIGITS digits. `distinct`: how
    many distinct values each has, the smaller number.
    """

    earlier: str
    later: str
    kind: Kind
    correlation: float | None
    equal_share: float
    scale: float | None
    lag: int
    common: int
    distinct: int
