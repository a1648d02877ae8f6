"""Crunch Synth: densities of price changes by step, scored by their CRPS relative to the round.

A round asks for the next day or hour of one asset: for each step, a density of the change within each increment. The
error of an answer is the CRPS of all increments. The best answer of a round scores 1, the worst 5 % score 0, and the
others lie on a line between.
"""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import numpy as np
from docs.contracts.densities import Leaf, Refused, crps, leaves
from docs.contracts.synth_terms import HALF_WIDTH, HORIZONS, aggregation, asked, payout
from pydantic import BaseModel, ConfigDict

from coordinator.streams.contract import CallMethod, CrunchContract, Failed, ScoreResult

BASE_STEP = 300
STEPS = next(iter(HORIZONS.values()))[1]


def normal(loc: float, scale: float) -> dict[str, Any]:
    """A density, in the form of an answer."""
    return {"type": "builtin", "name": "norm", "params": {"loc": loc, "scale": scale}}


class Densities(BaseModel):
    """Step in seconds -> a density of the price's change for each increment of the horizon."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"steps": {str(step): [normal(loc, 125.0)] * (86_400 // step) for step in STEPS}} for loc in (0.0, 20.0, 1500.0)
    ]})  # fmt: skip
    steps: dict[str, list[Any]]


class Prices(BaseModel):
    """The real prices and their times, in seconds and ascending."""

    times: list[float]
    prices: list[float]

    def changes(self, asked: float, horizon: int, step: int) -> list[float | None]:
        """The change within each increment, from the records closest to its ends; None if both ends have the same
        record.
        """
        times = np.array(self.times)
        ends = [int(np.argmin(np.abs(times - asked - i * step))) for i in range(horizon // step + 1)]
        return [None if a == b else self.prices[b] - self.prices[a] for a, b in pairwise(ends)]


class Score(ScoreResult):
    """`crps` is in units of the half width. Less is better."""

    crps: float


def resolve(records: list[Any]) -> dict[str, Any]:
    """The prices from the point on; ticks have a price, candles a close."""
    prices = [record.values.get("price", record.values.get("close")) for record in records]
    return {"times": [record.at / 1000 for record in records], "prices": prices}


def judged(answer: Densities, truth: Prices, context: Any) -> list[tuple[list[Leaf], float, float]]:
    """(density, change, half width) of each increment with a change. Raises Refused."""
    increments = []
    for step in context.params["steps"]:
        changes = truth.changes(context.point / 1000, context.horizon_seconds, step)
        densities = answer.steps.get(str(step), [])
        if len(densities) != len(changes):
            raise Refused(f"step {step}: not {len(changes)} densities")
        half = max(1.0, (step / BASE_STEP) ** 0.5) * context.params["half_width"]
        of_step = [leaves(density, digits=6, leaves_max=3) for density in densities]
        increments += [
            (density, x, half) for density, x in zip(of_step, changes, strict=True) if x is not None
        ]
    return increments


def score_round(answers: Any, truth: Prices, context: Any) -> list[Any]:
    """A score for each valid answer. A model without a valid answer gets the worst score, 0, by the contract's
    absence_policy.
    """
    each: list[Any] = []
    for answer in answers.outputs:
        try:
            each.append(None if answer is None else judged(answer, truth, context))
        except Refused as why:
            each.append(Failed(str(why)))
    many = [increment for own in each if isinstance(own, list) for increment in own]
    errors = iter(crps(many, context.params["points"], normalise=context.params["normalise"]))
    half_width = context.params["half_width"]
    results = [sum(islice(errors, len(own))) / half_width if isinstance(own, list) else own for own in each]
    valid = [error for error in results if isinstance(error, float)]
    best, worst = (min(valid), float(np.percentile(valid, 95))) if valid else (0.0, 0.0)
    width = worst - best
    return [
        {"value": min(1.0, max(0.0, (worst - result) / width)) if width else 1.0, "crps": result}
        if isinstance(result, float)
        else result
        for result in results
    ]


SYNTH: dict[str, Any] = {
    "output_type": Densities,
    "ground_truth_type": Prices,
    "score_type": Score,
    "resolve_ground_truth": resolve,
    "score_round": score_round,
    "absence_policy": "zero",
    "output_max_bytes": 1_000_000,
    "deadline_seconds": 40,
    "call_method": CallMethod(predict_arguments=("subject", "horizon_seconds", "steps")),
}
ASKED = [asked(asset, horizon) for horizon in HORIZONS for asset in HALF_WIDTH]
CONTRACT = CrunchContract(
    scheduled_predictions=ASKED,
    aggregation=aggregation([schedule.scope_key for schedule in ASKED]),
    payout=payout(),
    **SYNTH,
)
