"""Forecasts that stand over time: which count, when they stood, and how they compare with those beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

SUM_TOLERANCE = 1e-9


class Forecasts(BaseModel):
    """[{"p": a probability for each option, "start": s, "end": s or None}, ..], in order of time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"forecasts": [{"p": p, "start": 0, "end": None}]} for p in ([0.3, 0.7], [0.6, 0.4])]
        }
    )
    forecasts: list[dict[str, Any]]


class Question(BaseModel):
    """`scheduled` is when it should have closed, `closed` when it did. Without an outcome it is annulled."""

    open: float
    scheduled: float
    closed: float
    options: int
    outcome: int | None = None
    weight: float = 1.0


def refusal(forecast: Mapping[str, Any], truth: Question, rules: Mapping[str, float]) -> str:
    """Why a forecast is as none; empty where it counts."""
    p = forecast["p"]
    numbers = isinstance(p, list) and all(type(one) in (int, float) and math.isfinite(one) for one in p)
    if not numbers or len(p) != truth.options:
        return "not a probability for each outcome"
    if not all(rules["p_min"] <= one <= rules["p_max"] for one in p):
        return f"beyond {rules['p_min']:.1%} to {rules['p_max']:.1%}"
    if abs(sum(p) - 1) > SUM_TOLERANCE:
        return "does not sum to 1"
    return "after the close" if forecast["start"] >= truth.closed else ""


def standing(forecasts: list[dict[str, Any]], truth: Question) -> list[tuple[float, float, float]]:
    """[from, until, probability of what came true], without what lies outside of open and close."""
    ends = [*(one["start"] for one in forecasts[1:]), math.inf][: len(forecasts)]
    found = []
    for one, replaced in zip(forecasts, ends, strict=True):
        end = replaced if one["end"] is None else min(one["end"], replaced)
        since, until = max(one["start"], truth.open), min(end, truth.closed)
        if since < until:
            found.append((since, until, float(one["p"][truth.outcome or 0])))
    return found


def peers(stood: Mapping[str, list[tuple[float, float, float]]]) -> dict[str, float]:
    """Of each model the integral over time of 100 n/(n-1) ln(p / geometric mean of the n that stand); alone it is 0."""
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
