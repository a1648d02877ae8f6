"""Forecasts that are valid over time: which count, when they were valid, and how they compare with the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

SUM_TOLERANCE = 1e-9


class Forecast(BaseModel):
    """A probability for each option. It is valid until the next one, or until the close. None withdraws it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"p": p} for p in ([0.3, 0.7], [0.6, 0.4])]})
    p: list[float] | None

    @field_validator("p")
    @classmethod
    def _is_one(cls, p: list[float] | None) -> list[float] | None:
        if p is not None and not all(math.isfinite(chance) for chance in p):
            raise ValueError("not a probability for each outcome")
        if p is not None and abs(sum(p) - 1) > SUM_TOLERANCE:
            raise ValueError("does not sum to 1")
        return p


class Truth(BaseModel):
    """The index of the option that came true. An annulled question is void and has no truth. `scheduled` (s) is the
    planned close of a question that was closed early.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"outcome": 0}, {"outcome": 1}]})
    outcome: int = Field(ge=0)
    scheduled: float | None = None
    weight: float = 1.0


class Question(NamedTuple):
    """When a question opened and closed (s), its planned close, what came true, and how many options it has."""

    open: float
    scheduled: float
    closed: float
    outcome: int
    options: int


def refusal(p: list[float], options: int, rules: Mapping[str, float]) -> str:
    """Why a forecast does not count; empty if it counts."""
    if len(p) != options:
        return "not a probability for each outcome"
    return (
        ""
        if all(rules["p_min"] <= chance <= rules["p_max"] for chance in p)
        else f"beyond {rules['p_min']:.1%} to {rules['p_max']:.1%}"
    )


def standing(
    answers: list[dict[str, Any]], question: Question, rules: Mapping[str, float]
) -> list[tuple[float, float, float]]:
    """[from, until (s), probability of what came true], cut to the time between open and close. `answers` are those of
    one model with their times, in order.
    """
    told = [(answer["at"] / 1000, answer["output"]["p"]) for answer in answers]
    counted = [(at, p) for at, p in told if p is None or not refusal(p, question.options, rules)]
    ends = [*(at for at, _ in counted[1:]), math.inf]
    spans = [
        (max(at, question.open), min(end, question.closed), p)
        for (at, p), end in zip(counted, ends, strict=False)
    ]
    return [(since, until, float(p[question.outcome])) for since, until, p in spans if p and since < until]


def peers(stood: Mapping[str, list[tuple[float, float, float]]]) -> dict[str, float]:
    """For each model the integral over time of 100 n/(n-1) ln(p / geometric mean of the n valid ones); 0 for a model
    alone.
    """
    cuts = sorted({at for of in stood.values() for since, until, _ in of for at in (since, until)})
    sums = dict.fromkeys(stood, 0.0)
    for since, until in pairwise(cuts):
        logs = {
            model: math.log(p) for model, of in stood.items() for a, b, p in of if a <= since and until <= b
        }
        n = len(logs)
        for model, log in logs.items() if n > 1 else ():
            sums[model] += 100 * n / (n - 1) * (log - math.fsum(logs.values()) / n) * (until - since)
    return sums
