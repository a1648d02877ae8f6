"""What Crunch Synth asks, and how it ranks and pays: boards by horizon and parameter, a pool for each horizon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    Board,
    Payout,
    Pool,
    PredictionScope,
    ScheduledPrediction,
    top,
)

HORIZONS = {86_400: (3600, [300, 3600, 21_600, 86_400]), 3600: (720, [60, 300, 900, 1800, 3600])}
"""Horizon -> (the interval between questions, its steps), in seconds."""
HALF_WIDTH = {
    "BTC": 1500, "ETH": 80, "SOL": 4, "XAUT": 33, "SP500": 21, "NVDAX": 2.3, "TSLAX": 5.9, "AAPLX": 2.1,
    "GOOGLX": 3.4, "XRP": 0.04, "HYPE": 1.1, "WTIOIL": 1.2,
}  # fmt: skip
"""The unit of a change, in the money of the asset."""
POINTS = 256
WINDOWS = {"recent": 24, "steady": 72, "anchor": 168}
"""Name -> hours."""
WEIGHTS = {
    "BTC": 1.0, "ETH": 0.7064366394033871, "XAUT": 1.7370922597118699, "SOL": 0.6310037175639559,
    "SP500": 3.437935601155441, "NVDAX": 1.6028217601617174, "TSLAX": 1.6068755936957768, "AAPLX": 2.0916380815843123,
    "GOOGLX": 1.6827392777257926, "XRP": 0.5658394110809131, "HYPE": 0.4784547133706857, "WTIOIL": 0.8475062847978935,
}  # fmt: skip


def asked(asset: str, horizon: int, **params: Any) -> ScheduledPrediction:
    """One asset and horizon. Its key is a parameter of the boards, such as BTC:3600."""
    interval, steps = HORIZONS.get(horizon, (horizon, [horizon]))
    usual = {"steps": steps, "half_width": HALF_WIDTH.get(asset), "points": POINTS, "normalise": False}
    scope = PredictionScope(subject=asset, horizon_seconds=horizon)
    return ScheduledPrediction(
        scope_key=f"{asset}:{horizon}", scope=scope, interval_seconds=interval, params=usual | params
    )


def aggregation(params: Sequence[str], weights: Mapping[str, float] = WEIGHTS) -> Aggregation:
    """For each window: a board for each parameter (asset:horizon), one for each horizon, and one for everything."""
    horizons = sorted({name.partition(":")[2] for name in params}, key=int)
    boards = []
    for window in WINDOWS:
        boards += [Board(name=f"{window} {name}", window=window, scope_keys=[name]) for name in params]
        for horizon in horizons:
            assets = sorted({name.partition(":")[0] for name in params if name.endswith(f":{horizon}")})
            of = {asset: weights[asset] for asset in assets}
            name = f"{window} {horizon}"
            boards.append(Board(name=name, window=window, horizon_seconds=int(horizon), weights=of))
        of = {asset: weights[asset] for asset in sorted({name.partition(":")[0] for name in params})}
        boards.append(Board(name=f"{window} all", window=window, weights=of))
    windows = [AggregationWindow(name=name, hours=hours) for name, hours in WINDOWS.items()]
    return Aggregation(windows=windows, ranking_key="recent", checkpoint_key="anchor all", boards=boards)


def payout(
    benchmarks: Sequence[str] = (),
    keys: Iterable[str] = tuple(f"anchor {horizon}" for horizon in HORIZONS),
    *,
    alpha: float = 1.0,
    top_k: int = 4,
    cutoff: bool = False,
) -> Payout:
    """A pool for each horizon, of equal weight. A score of 0 or none is not paid there. The rest of a pool stays
    unpaid.
    """
    return Payout(
        pools=[Pool(name=key, key=key, rule=top(top_k, alpha=alpha), above=0) for key in keys],
        best_model_only=True,
        benchmarks=list(benchmarks),
        beat_benchmark=cutoff,
        retained="prizes_only",
    )
