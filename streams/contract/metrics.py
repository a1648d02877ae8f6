"""The part of a contract that says which metrics a snapshot has, and from which score fields they are computed.

A metric is computed over a whole snapshot period, from the series of every model, aligned by round and scope. It reads
two fields of the contract's score_type: the signal of the model (`signal_field`) and the outcome (`outcome_field`). The
log holds both for every scored prediction, so a metric can be recomputed from the log alone. The functions are in
`coordinator.streams.snapshots.metrics`; numpy is loaded only if a contract has metrics. Pure.
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
"""The metrics that come with the node. `coordinator.streams.snapshots.metrics` has the formula of each."""


class Metrics(BaseModel):
    """The metrics that a snapshot has beside its sums. Each is a key of its summary, and a board can rank by it.

    Example: `Metrics(signal_field="signal", outcome_field="outcome", names=["ic", "max_drawdown"])`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    signal_field: str = "signal"
    """The field of score_type with the signal of the model, a number such as 0.4."""
    outcome_field: str = "outcome"
    """The field of score_type with the outcome, the same for every model of a round: -0.0012."""
    names: list[str] = []
    """Any of ic, ic_sharpe, hit_rate, mean_return, max_drawdown, sortino_ratio, turnover, model_correlation, fnc,
    contribution, ensemble_correlation."""
    own: dict[str, Callable[[Any, int], float | None]] = {}
    """Name -> function(series, i) -> float, or None for undefined. `series` is a `PeriodSeries` (signals and scores of
    n rounds and m models, outcomes of n rounds), `i` the model's column in it. If the function raises, that snapshot
    has no such metric, and says why."""
    ensemble: str = ""
    """The name of a declared ensemble (`CrunchContract.ensembles`). `contribution` and `ensemble_correlation` use its
    weights of each round. Empty: all models have the same weight."""
    chunks: int = Field(default=10, ge=2, le=1000)
    """The number of pieces, by time, into which `ic_sharpe` cuts the period."""

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
        """The summary keys of these metrics, in order."""
        return [*self.names, *self.own]
