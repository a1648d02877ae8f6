"""A market's prices by event and day, and how forecasts of them are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Forecasts(BaseModel):
    """{event: probability} for the day of the question."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"forecasts": {"e": p}} for p in (0.3, 0.8)]})
    forecasts: dict[str, Annotated[float, Field(ge=0, le=1)]]


class Market(BaseModel):
    """The market as it is known on `today`, the day after the day of the question: each event's prices by day, the
    resolved events (event -> (day, outcome)), and the day on which each model was activated.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"today": 1, "prices": {"e": {"0": 0.5, "1": 0.5}}, "resolved": {"e": [1, p]}} for p in (0, 1)
            ]
        }
    )
    today: int
    prices: dict[str, dict[int, float]]
    resolved: dict[str, tuple[int, float]] = {}
    activated: dict[str, int] = {}

    def truth(self, event: str, day: int, horizon_days: int) -> tuple[int, float] | None:
        """The target of a forecast: (day on which it became known, the outcome or the price a week later); None until
        then.
        """
        ends_on = day + horizon_days
        if event in self.resolved and self.resolved[event][0] <= ends_on:
            return self.resolved[event]
        price = self.prices[event].get(ends_on)
        return None if price is None or ends_on > self.today else (ends_on, price)


def cells(truth: Market, since: int, days: int) -> set[tuple[str, int]]:
    """(event, day) of everything that a model could forecast: open events since its activation, before today."""
    return {
        (event, day)
        for event, prices in truth.prices.items()
        for day in range(max(since, truth.today - days), truth.today)
        if day in prices and not (event in truth.resolved and day >= truth.resolved[event][0])
    }


Said = dict[str, dict[str, float]]
"""Day -> event -> probability: a model's forecasts, as its state holds them."""


def remembered(
    forecasts_before: Said, forecasts: Mapping[str, float], truth: Market, rules: Mapping[str, Any]
) -> Said:
    """A model's forecasts including the last day, as far back as they can still be needed."""
    of_day = {event: p for event, p in forecasts.items() if event in truth.prices}
    since = truth.today - rules["coverage_days"] - rules["horizon_days"]
    told = forecasts_before | ({str(truth.today - 1): of_day} if of_day else {})
    return {day: of for day, of in told.items() if int(day) >= since}


def judged(told: Said, since: int, truth: Market, rules: Mapping[str, Any]) -> dict[str, Any]:
    """The mean over events of the latest score of the last week, the coverage, and the reason why the model is not
    ranked.
    """
    forecasts = {
        (event, int(day)): p for day, of in told.items() for event, p in of.items() if event in truth.prices
    }
    asked = cells(truth, since, rules["coverage_days"])
    coverage = len(asked & forecasts.keys()) / len(asked) if asked else 0.0
    latest: dict[str, tuple[int, float]] = {}
    days = set()
    for (event, day), p in sorted(forecasts.items(), key=lambda item: item[0][1]):
        price, resolved = truth.prices[event].get(day), truth.truth(event, day, rules["horizon_days"])
        if (
            price is None
            or resolved is None
            or not truth.today - rules["horizon_days"] < resolved[0] <= truth.today
        ):
            continue
        days.add(day)
        latest[event] = (day, (p - resolved[1]) ** 2 - (price - resolved[1]) ** 2)
    mean = math.fsum(score for _, score in latest.values()) / len(latest) if latest else None
    few = "no scores" if mean is None else "scored days" if len(days) < rules["scored_days_min"] else None
    gated = few or ("coverage" if coverage < rules["coverage_min"] else None)
    return {"mean": mean, "coverage": coverage, "gated": gated}
