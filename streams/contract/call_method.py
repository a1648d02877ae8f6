"""The part of a contract that names the two methods of a model, and the arguments of each.

The predict worker calls the models by it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

METHOD_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
PERFORMANCE = "performance"
PREDICT_NAMES = frozenset(
    {"subject", "horizon_seconds", "step_seconds", "scope_key", "asof_ts", "params", PERFORMANCE}
)
"""The possible arguments of a prediction, beside the params of its schedule."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallMethod(_Strict):
    """The names of a model's two methods, and the arguments of each, in order.

    `data` is the model input, `asof_ts` the point of the input in ms. In some challenges the tick is `feed_update`.
    `performance` is that of the model itself in the last closed snapshot period, or `{}` if it has none:
    `{"period_end": ms, "windows": {"score_recent": 0.1}, "boards": {}, "summary": {"value": 0.1}, "counts": {"scored":
    6, "failed": 0, "absent": 1}}`.
    """

    tick: str = Field(default="tick", pattern=METHOD_NAME)
    """The method that receives each new input."""
    tick_arguments: tuple[Literal["data", "subject", "asof_ts", "performance"], ...] = ("data",)
    """The arguments of `tick`, in order."""
    predict: str = Field(default="predict", pattern=METHOD_NAME)
    """The method that returns an answer. It is called once for each scope."""
    predict_arguments: tuple[str, ...] = ("subject", "horizon_seconds", "step_seconds")
    """The arguments of `predict`, in order: `subject`, `horizon_seconds`, `step_seconds`, `scope_key`, `asof_ts`,
    `performance`, `params` (those of the schedule, as an object), or the name of one of the params."""

    @property
    def asks_performance(self) -> bool:
        """True if a method gets the model's own performance."""
        return PERFORMANCE in self.tick_arguments or PERFORMANCE in self.predict_arguments

    def tick_values(self, data: Any, subject: str, asof_ts: int, performance: Mapping[str, Any]) -> list[Any]:
        """The values of the arguments of one tick, in order."""
        values = {"data": data, "subject": subject, "asof_ts": asof_ts, PERFORMANCE: performance}
        return [values[name] for name in self.tick_arguments]

    def predict_values(
        self,
        subject: str,
        asof_ts: int,
        scope_key: str,
        horizon_seconds: int,
        step_seconds: int,
        params: Mapping[str, Any],
        performance: Mapping[str, Any],
    ) -> list[Any]:
        """The values of the arguments of one prediction, in order. Raises KeyError for an argument that is no param."""
        values: dict[str, Any] = {
            **params,
            "params": dict(params),
            "subject": subject,
            "horizon_seconds": horizon_seconds,
            "step_seconds": step_seconds,
            "scope_key": scope_key,
            "asof_ts": asof_ts,
            PERFORMANCE: performance,
        }
        return [values[name] for name in self.predict_arguments]
