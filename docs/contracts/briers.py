"""Numinous' events: what stood on each day, the score of an event, and the means of the pools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

LOW, HIGH, UNKNOWN = 0.01, 0.99, 0.5


class Run(BaseModel):
    """What stands on each day: {day: probability}. `failed`: a run of the model failed. `registered` is a day, too."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"predictions": {"0": p}} for p in (0.3, 0.8)]})
    predictions: dict[int, Any] = {}
    failed: bool = False
    registered: int = 0


class Ended(BaseModel):
    """`outcome` is 1 or 0. With marks (or scores) of each model given, those count."""

    days: int = 1
    outcome: float = 0.0
    marks: dict[str, float] = {}


def brier(run: Run, days: int, outcome: float) -> float | None:
    """The squared error of the mean over the days, each weighted 1 - (day / last day)**2; None: not scored."""
    said = {
        day: one
        for day, one in run.predictions.items()
        if type(one) in (int, float) and math.isfinite(one) and 0 <= day < days
    }
    if run.registered > 0:
        return None
    if not said:
        return (UNKNOWN - outcome) ** 2 if run.failed else None
    weights = {day: 1 - (day / (days - 1)) ** 2 if days > 1 else 1.0 for day in said}
    whole = math.fsum(weights.values())
    if not whole:
        return None
    clipped = {day: min(max(one, LOW), HIGH) for day, one in said.items()}
    return (math.fsum(weights[day] * one for day, one in clipped.items()) / whole - outcome) ** 2


def means(scores: Mapping[str, list[float]], pools: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Of each pool the mean of its last scores, None with fewer than the least; their weighted mean if all have one."""
    counts = {name: min(len(scores.get(name, [])), int(rule["last"])) for name, rule in pools.items()}
    found = {
        name: math.fsum(scores[name][-count:]) / count if count and count >= pools[name]["least"] else None
        for name, count in counts.items()
    }
    parts = [pools[name]["weight"] * mean for name, mean in found.items() if mean is not None]
    whole = math.fsum(rule["weight"] for rule in pools.values())
    return {
        "means": found,
        "counts": counts,
        "weighted": math.fsum(parts) / whole if len(parts) == len(pools) else None,
    }


def resolve(records: list[Any]) -> dict[str, Any]:
    """A record has `days` and `outcome`, or the marks as `mark:MODEL`."""
    values = records[-1].values
    marks = {name.partition(":")[2]: one for name, one in values.items() if name.startswith("mark:")}
    return {name: one for name, one in values.items() if name in ("days", "outcome")} | {"marks": marks}
