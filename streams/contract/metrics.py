"""What a contract says about metrics: which of them, over which score fields.

A metric looks at a whole snapshot period: every model's series side by side, aligned by round and scope.
It reads two fields of the contract's score_type, which the log holds for every scored prediction: what the
model said (`signal_field`) and what happened (`outcome_field`). So a metric needs nothing that is not on the log.
The functions are in `coordinator.streams.snapshots.metrics`; numpy is loaded only where a contract has metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

METRIC_NAMES = (
    "ic",
    "ic_sharpe",
    "hit_rate",
    "mean_return",
    "max_drawdown",
    "sortino_ratio",
    "turnover",
    "model_correlation",
    "fnc",
    "contribution",
    "ensemble_correlation",
)
"""The metrics that come with the node; `coordinator.streams.snapshots.metrics` has a formula for each."""


class Metrics(BaseModel):
    """Which metrics a snapshot has beside the sums. Each is a key of its summary and can rank a board.

    Example: `Metrics(signal_field="signal", outcome_field="outcome", names=["ic", "max_drawdown"])`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    signal_field: str = "signal"
    """The field of score_type with what the model said, as a number: 0.4."""
    outcome_field: str = "outcome"
    """The field of score_type with what happened, the same for every model of a round: -0.0012."""
    names: list[str] = []
    """Of ic, ic_sharpe, hit_rate, mean_return, max_drawdown, sortino_ratio, turnover, model_correlation, fnc,
    contribution, ensemble_correlation."""
    own: dict[str, Callable[[Any, int], float | None]] = {}
    """Name -> function(series, i) -> float, or None for undefined. `series` is a `PeriodSeries` (signals and scores of
    n rounds and m models, outcomes of n rounds), `i` the model's column in it. A function that raises leaves its metric
    out of that snapshot, which says why."""
    ensemble: str = ""
    """The name of a declared ensemble (`CrunchContract.ensembles`) whose weights, round by round, `contribution` and
    `ensemble_correlation` go by. Without one all models weigh alike."""
    chunks: int = Field(default=10, ge=2, le=1000)
    """Into how many pieces, by time, `ic_sharpe` cuts the period."""

    @model_validator(mode="after")
    def _names_are_known_and_mean_one_thing(self) -> Metrics:
        unknown = [name for name in self.names if name not in METRIC_NAMES]
        if unknown:
            message = (
                f"aggregation.metrics.names: {unknown} are none of {list(METRIC_NAMES)}; yours go into `own`"
            )
            raise ValueError(message)
        twice = sorted({name for name in self.names if self.names.count(name) > 1 or name in self.own})
        taken = sorted(set(self.own) & set(METRIC_NAMES))
        if twice or taken:
            message = f"aggregation.metrics: {sorted({*twice, *taken})} stand twice; our names are taken"
            raise ValueError(message)
        return self

    @property
    def keys(self) -> list[str]:
        """The summary keys that these metrics make, in order."""
        return [*self.names, *self.own]
