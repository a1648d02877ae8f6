"""How Crunch Synth ranks and pays: boards by horizon and parameter, a pool for each horizon."""

from __future__ import annotations

from coordinator.streams.contract import Board, Payout, Pool, top


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
