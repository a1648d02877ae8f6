"""Numinous' events: what stood on each day, the score of an event, and the means of the pools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LOW, HIGH, UNKNOWN, DAY_MS = 0.01, 0.99, 0.5, 86_400_000


class Answer(BaseModel):
    """The chance of a yes. It stands for each later day; None withdraws what stood."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prediction": p} for p in (0.3, 0.8)]})
    prediction: float | None = Field(allow_inf_nan=False)
    reasoning: str = ""


class Ended(BaseModel):
    """`outcome` is 1 or 0. `registered` names the models that registered after the question opened; they are not
    scored. With marks (or scores) of each model given, those count.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"outcome": 0.0}, {"outcome": 1.0}]})
    outcome: float = Field(default=0.0, ge=0, le=1)
    registered: list[str] = []
    marks: dict[str, float] = {}


def by_day(history: Mapping[str, Any]) -> dict[int, float]:
    """{day: what stood at its end}, of a model's answers with their times (ms); a day is a day from the opening."""
    opens_at, days = history["opens_at"], days_of(history["opens_at"], history["closes_at"])
    stood: dict[int, float | None] = {}
    for answer in history["answers"]:
        since = max((answer["at"] - opens_at) // DAY_MS, 0)
        stood |= dict.fromkeys(range(since, days), answer["output"]["prediction"])
    return {day: p for day, p in stood.items() if p is not None}


def days_of(opens_at: int, closes_at: int) -> int:
    """How many days a question runs, the last one begun; at least one. Times: ms."""
    return max(-((opens_at - closes_at) // DAY_MS), 1)


def brier(forecasts: Mapping[int, float], days: int, outcome: float) -> float | None:
    """The squared error of the mean over the days, each weighted 1 - (day / last day)**2; None: not scored."""
    weights = {day: 1 - (day / (days - 1)) ** 2 if days > 1 else 1.0 for day in forecasts}
    whole = math.fsum(weights.values())
    if not whole:
        return None
    clipped = {day: min(max(p, LOW), HIGH) for day, p in forecasts.items()}
    return (math.fsum(weights[day] * p for day, p in clipped.items()) / whole - outcome) ** 2


def event_score(answer: Any, days: int, truth: Ended) -> float | None:
    """The score of one model's answers to an event: that of 0.5 if its runs failed and nothing stood, none if it was
    silent or registered too late.
    """
    if answer.model_id in truth.registered:
        return None
    forecasts = by_day(answer.output) if answer.output else {}
    if not forecasts:
        return (UNKNOWN - truth.outcome) ** 2 if answer.status == "failed" else None
    return brier(forecasts, days, truth.outcome)


def means(scores: Mapping[str, list[float]], pools: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Of each pool the mean of its last scores, None with fewer than the least; their weighted mean if all have one."""
    counts = {name: min(len(scores.get(name, [])), int(rule["last"])) for name, rule in pools.items()}
    mean_of_pool = {
        name: math.fsum(scores[name][-count:]) / count if count and count >= pools[name]["least"] else None
        for name, count in counts.items()
    }
    parts = [pools[name]["weight"] * mean for name, mean in mean_of_pool.items() if mean is not None]
    whole = math.fsum(rule["weight"] for rule in pools.values())
    return {
        "means": mean_of_pool,
        "counts": counts,
        "weighted": math.fsum(parts) / whole if len(parts) == len(pools) else None,
    }
