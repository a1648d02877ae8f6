"""Numinous events as a contract: how its board is paid."""

from __future__ import annotations

from typing import Any

from coordinator.streams.contract import Aggregation, CrunchContract, Payout, Pool, in_proportion, top


def contract(
    pubkey: str,
    benchmark: str | None,
    *,
    alpha: float = 1.0,
    top_k: int = 10,
    brier_below: float | None = None,
) -> CrunchContract:
    """Ten places. Those of who may not be paid are kept, and their share is retained. Less is better."""

    def eligible(entry: dict[str, Any]) -> str:
        briers = [entry["keys"].get(name) for name in ("global_brier", "geopolitics_brier")]
        if brier_below is None or all(one is not None and one < brier_below for one in briers):
            return ""
        return f"a Brier score is not below {brier_below}"

    pool = Pool(name="week", rule=top(top_k, alpha=alpha), eligible=eligible)
    return _contract(
        pubkey,
        Payout(
            pools=[pool],
            best_model_only=True,
            benchmarks=[benchmark] if benchmark else [],
            beat_benchmark=True,
            unpaid_places="kept",
            retained="prizes_only",
        ),
    )


def reforecast(pubkey: str, place: int = 21) -> CrunchContract:
    """The subnet's rule: the squared distance to the 21st best; nobody above it: burnt."""
    pool = Pool(name="week", rule=in_proportion(above_place=place, power=2))
    return _contract(pubkey, Payout(pools=[pool], retained="prizes_only"))


def _contract(pubkey: str, payout: Payout) -> CrunchContract:
    return CrunchContract(
        crunch_pubkey=pubkey, payout=payout, aggregation=Aggregation(ranking_direction="asc")
    )
