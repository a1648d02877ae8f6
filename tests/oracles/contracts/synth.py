"""Crunch Synth as a contract: densities of price changes by step, scored by their CRPS within the round."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from coordinator.streams.contract import Board, CrunchContract, Failed, Payout, Pool, top
from oracles.contracts.densities import Refused, leaves, pdf

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


def crps(
    answer: Densities,
    truth: Prices,
    asked: float,
    horizon: int,
    steps: list[int],
    t: float,
    points: int,
    normalise: bool,
) -> float:
    """The sum over steps and increments of the integral of (F - 1[z >= x])**2, divided by t. Raises Refused."""
    total = 0.0
    for step in steps:
        densities, n = answer.steps.get(str(step), []), horizon // step
        if len(densities) != n:
            raise Refused(f"step {step}: not {n} densities")
        grid = np.linspace(-1.0, 1.0, points) * max(1.0, (step / 300) ** 0.5) * t
        dz = grid[1] - grid[0]
        for i, density in enumerate(densities):
            known = leaves(density, digits=6)
            first, last = truth.at(asked + i * step), truth.at(asked + (i + 1) * step)
            if first != last:
                change = truth.prices[last] - truth.prices[first]
                below = np.cumsum(pdf(known, grid)) * dz
                below = np.clip(below / below[-1] if normalise and below[-1] > 0 else below, 0, 1)
                total += float(np.trapezoid((below - (grid >= change)) ** 2, dx=dz))
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
                asked, horizon = context.point / 1000, context.horizon_seconds
                on = truth, asked, horizon, steps, t, points, normalise
                found.append(answer.output and crps(answer.output, *on))
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


def boards(params: list[str], weights: dict[str, float], windows: list[str]) -> list[Board]:
    """In each window: one for each parameter (asset:horizon), for each horizon, and the whole one."""
    horizons = sorted({name.partition(":")[2] for name in params}, key=int)
    found = []
    for window in windows:
        found += [Board(name=f"{window} {name}", window=window, scope_keys=[name]) for name in params]
        for horizon in horizons:
            assets = {name.partition(":")[0] for name in params if name.endswith(f":{horizon}")}
            of = {one: weights[one] for one in sorted(assets)}
            found.append(
                Board(name=f"{window} {horizon}", window=window, horizon_seconds=int(horizon), weights=of)
            )
        found.append(Board(name=f"{window} all", window=window, weights=weights))
    return found


def payout(
    benchmarks: list[str],
    horizons: tuple[str, ...],
    *,
    alpha: float = 1.0,
    top_k: int = 4,
    cutoff: bool = False,
) -> Payout:
    """A pool for each horizon, of equal weight; who has 0 or nothing there is not paid. What is left stays unpaid."""
    pools = [Pool(name=one, key=one, rule=top(top_k, alpha=alpha), above=0) for one in horizons]
    return Payout(
        pools=pools,
        best_model_only=True,
        benchmarks=benchmarks,
        beat_benchmark=cutoff,
        retained="prizes_only",
    )
