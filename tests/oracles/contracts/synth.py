"""Crunch Synth as a contract: how its boards are weighted, and how its pools are paid."""

from __future__ import annotations

from coordinator.streams.contract import CrunchContract, Payout, Pool, top

ASSET_WEIGHTS = {
    "BTC": 1.0, "ETH": 0.7064366394033871, "XAUT": 1.7370922597118699, "SOL": 0.6310037175639559,
    "SP500": 3.437935601155441, "SPYX": 3.437935601155441, "NVDAX": 1.6028217601617174,
    "TSLAX": 1.6068755936957768, "AAPLX": 2.0916380815843123, "GOOGLX": 1.6827392777257926,
    "XRP": 0.5658394110809131, "HYPE": 0.4784547133706857, "WTIOIL": 0.8475062847978935,
}  # fmt: skip
HORIZONS = ("3600", "86400")


def contract(
    pubkey: str,
    benchmarks: list[str],
    *,
    alpha: float = 1.0,
    top_k: int = 4,
    benchmark_cutoff: bool = False,
    horizons: tuple[str, ...] = HORIZONS,
) -> CrunchContract:
    """A pool for each horizon, of equal weight; who has 0 or nothing there is not paid. What is left stays unpaid."""
    pools = [Pool(name=horizon, key=horizon, rule=top(top_k, alpha=alpha), above=0) for horizon in horizons]
    payout = Payout(
        pools=pools,
        best_model_only=True,
        benchmarks=benchmarks,
        beat_benchmark=benchmark_cutoff,
        retained="prizes_only",
    )
    return CrunchContract(crunch_pubkey=pubkey, payout=payout)
