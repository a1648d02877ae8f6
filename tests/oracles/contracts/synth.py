"""Crunch Synth as a contract: densities of price changes by step, scored by their CRPS within the round."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract, Failed
from oracles.contracts.densities import Refused, crps, leaves

HALF_WIDTH = {
    "BTC": 1500, "ETH": 80, "SOL": 4, "XAUT": 33, "SP500": 21, "NVDAX": 2.3, "TSLAX": 5.9, "AAPLX": 2.1,
    "GOOGLX": 3.4, "XRP": 0.04, "HYPE": 1.1, "WTIOIL": 1.2,
}  # fmt: skip


class Densities(BaseModel):
    """By step in seconds: a density of the price's change for each increment of the horizon."""

    steps: dict[str, list[Any]]


class Prices(BaseModel):
    """What happened: times in seconds, ascending, and prices."""

    subject: str
    times: list[float]
    prices: list[float]

    def at(self, time: float) -> int:
        """The record closest to a time."""
        return int(np.argmin(np.abs(np.array(self.times) - time)))


class Score(BaseModel):
    value: float
    crps: float


def resolve(records: list[Any]) -> dict[str, Any]:
    prices = [record.values["price"] for record in records]
    return {
        "subject": records[0].subject,
        "times": [record.at / 1000 for record in records],
        "prices": prices,
    }


def distance(answer: Densities, truth: Prices, context: Any, steps: list[int], t: float, **how: Any) -> float:
    """The sum over steps and increments of the CRPS, divided by t. Raises Refused."""
    total, asked = 0.0, context.point / 1000
    for step in steps:
        densities, n = answer.steps.get(str(step), []), context.horizon_seconds // step
        if len(densities) != n:
            raise Refused(f"step {step}: not {n} densities")
        for i, density in enumerate(densities):
            known = leaves(density, digits=6)
            first, last = truth.at(asked + i * step), truth.at(asked + (i + 1) * step)
            if first != last:
                change = truth.prices[last] - truth.prices[first]
                total += crps(known, change, max(1.0, (step / 300) ** 0.5) * t, **how)
    return total / t


def contract(
    pubkey: str,
    *,
    steps: list[int],
    half_width: dict[str, float],
    points: int = 256,
    normalise: bool = False,
    **fields: Any,
) -> CrunchContract:
    """Best 1, worst 5 % 0, linear between; who gave no valid answer has the round's worst, 0."""

    def score_round(answers: Any, truth: Prices, context: Any) -> list[Any]:
        t, found = half_width[truth.subject], []
        for answer in answers:
            try:
                how = {"points": points, "normalise": normalise}
                found.append(answer.output and distance(answer.output, truth, context, steps, t, **how))
            except Refused as why:
                found.append(Failed(str(why)))
        valid = [one for one in found if isinstance(one, float)]
        best, worst = (min(valid), float(np.percentile(valid, 95))) if valid else (0.0, 0.0)

        def scored(one: Any) -> Any:
            if not isinstance(one, float):
                return one
            value = 1.0 if worst == best else min(1.0, max(0.0, (worst - one) / (worst - best)))
            return {"value": value, "crps": one}

        return [scored(one) for one in found]

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Densities, ground_truth_type=Prices, score_type=Score,
        resolve_ground_truth=resolve, score_round=score_round, absence_policy="zero", output_max_bytes=1_000_000,
        **fields,
    )  # fmt: skip
