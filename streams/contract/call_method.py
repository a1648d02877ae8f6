"""The two methods of a model: their names, and what each is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

METHOD_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
PERFORMANCE = "performance"
PREDICT_NAMES = frozenset(
    {"subject", "horizon_seconds", "step_seconds", "scope_key", "asof_ts", "params", PERFORMANCE}
)
"""What a prediction may be called with beside the params of its schedule."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallMethod(_Strict):
    """The names of a model's two methods, and what each is given, in order.

    `data` is the model input, `asof_ts` the input's point in ms. Some challenges tick by `feed_update`. `performance`
    is the model's own of the last closed snapshot period, `{}` where it has none: `{"period_end": ms, "windows":
    {"score_recent": 0.1}, "boards": {}, "summary": {"value": 0.1}, "counts": {"scored": 6, "failed": 0, "absent": 1}}`.
    """

    tick: str = Field(default="tick", pattern=METHOD_NAME)
    """The method that receives each new input."""
    tick_arguments: tuple[Literal["data", "subject", "asof_ts", "performance"], ...] = ("data",)
    """What `tick` is called with, in order."""
    predict: str = Field(default="predict", pattern=METHOD_NAME)
    """The method that is asked for an answer, once for each scope."""
    predict_arguments: tuple[str, ...] = ("subject", "horizon_seconds", "step_seconds")
    """What `predict` is called with, in order: `subject`, `horizon_seconds`, `step_seconds`, `scope_key`, `asof_ts`,
    `params` (the schedule's, as an object), or the name of one of them; `performance`."""

    @property
    def asks_performance(self) -> bool:
        """Is a model given its own performance?"""
        return PERFORMANCE in (*self.tick_arguments, *self.predict_arguments)

    def tick_values(self, data: Any, subject: str, asof_ts: int, performance: Mapping[str, Any]) -> list[Any]:
        """What one tick is called with, in order."""
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
        """What one prediction is called with, in order. Raises KeyError for an argument that no param is."""
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
