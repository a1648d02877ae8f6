"""A market's prices by event and day, and how forecasts of them are judged."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict


class Forecasts(BaseModel):
    """[[event, day, probability], ..]"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"forecasts": [["e", 0, p]]} for p in (0.3, 0.8)]}
    )
    forecasts: list[tuple[str, int, float]]


class Market(BaseModel):
    """`resolved` is event -> (day, outcome)."""

    today: int
    prices: dict[str, dict[int, float]]
    resolved: dict[str, tuple[int, float]] = {}
    activated: dict[str, int] = {}

    def truth(self, event: str, day: int, horizon_days: int) -> tuple[int, float] | None:
        """(when it was known, the outcome or the price a week on) of a forecast; None while it is not."""
        known = day + horizon_days
        if event in self.resolved and self.resolved[event][0] <= known:
            return self.resolved[event]
        price = self.prices[event].get(known)
        return None if price is None or known > self.today else (known, price)


def cells(truth: Market, since: int, days: int) -> set[tuple[str, int]]:
    """(event, day) of all that could be forecast: open events, from a model's activation on, today not yet."""
    return {
        (event, day)
        for event, prices in truth.prices.items()
        for day in range(max(since, truth.today - days), truth.today)
        if day in prices and not (event in truth.resolved and day >= truth.resolved[event][0])
    }


def judged(
    told: list[tuple[str, int, float]], since: int, truth: Market, rules: dict[str, Any]
) -> dict[str, Any]:
    """The mean of each event's latest score of the last week, the coverage, and what keeps the model off the board."""
    said = {(event, day): p for event, day, p in told if event in truth.prices}
    asked = cells(truth, since, rules["coverage_days"])
    coverage = len(asked & said.keys()) / len(asked) if asked else 0.0
    latest: dict[str, tuple[int, float]] = {}
    days = set()
    for (event, day), p in sorted(said.items(), key=lambda one: one[0][1]):
        price, known = truth.prices[event].get(day), truth.truth(event, day, rules["horizon_days"])
        if (
            price is None
            or known is None
            or not truth.today - rules["horizon_days"] < known[0] <= truth.today
        ):
            continue
        days.add(day)
        latest[event] = (day, (p - known[1]) ** 2 - (price - known[1]) ** 2)
    mean = math.fsum(score for _, score in latest.values()) / len(latest) if latest else None
    few = "no scores" if mean is None else "scored days" if len(days) < rules["scored_days_min"] else None
    gated = few or ("coverage" if coverage < rules["coverage_min"] else None)
    return {"mean": mean, "coverage": coverage, "gated": gated}


def resolve(records: list[Any]) -> dict[str, Any]:
    """A record has `today`, `price:EVENT:DAY`, `resolved:EVENT` with `outcome:EVENT`, `activated:MODEL`."""
    values = records[-1].values
    told: dict[str, Any] = {"today": values["today"], "prices": {}, "resolved": {}, "activated": {}}
    for name, value in values.items():
        kind, _, of = name.partition(":")
        if kind == "price":
            event, _, day = of.rpartition(":")
            told["prices"].setdefault(event, {})[day] = value
        elif kind == "resolved":
            told["resolved"][of] = (value, values[f"outcome:{of}"])
        elif kind == "activated":
            told["activated"][of] = value
    return told
