"""Crunch Synth as a contract: densities of price changes by step, scored by their CRPS within the round."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import numpy as np
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract, Failed
from oracles.contracts.densities import Leaf, Refused, crps, leaves

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


def increments(truth: Prices, asked: float, horizon: int, steps: list[int]) -> dict[int, list[float | None]]:
    """By step the price's change within each increment; None where both ends have the same record."""
    found: dict[int, list[float | None]] = {}
    for step in steps:
        ends = [truth.at(asked + time) for time in range(0, horizon // step * step + 1, step)]
        pairs = pairwise(ends)
        found[step] = [None if a == b else truth.prices[b] - truth.prices[a] for a, b in pairs]
    return found


def judged(
    answer: Densities, changes: dict[int, list[float | None]], t: float
) -> list[tuple[list[Leaf], float, float]]:
    """(density, change, half width) of each increment. Raises Refused."""
    found = []
    for step, of_step in changes.items():
        densities = answer.steps.get(str(step), [])
        if len(densities) != len(of_step):
            raise Refused(f"step {step}: not {len(of_step)} densities")
        for density, change in zip(densities, of_step, strict=True):
            known = leaves(density, digits=6, leaves_max=3)
            if change is not None:
                found.append((known, change, max(1.0, (step / 300) ** 0.5) * t))
    return found


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
        t, each = half_width[truth.subject], []
        changes = increments(truth, context.point / 1000, context.horizon_seconds, steps)
        for answer in answers:
            try:
                each.append(answer.output and judged(answer.output, changes, t))
            except Refused as why:
                each.append(Failed(str(why)))
        many = [one for own in each if isinstance(own, list) for one in own]
        errors = iter(crps(many, points, normalise=normalise))
        found = [sum(islice(errors, len(own))) / t if isinstance(own, list) else own for own in each]
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
