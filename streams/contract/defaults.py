"""The default challenge: which way the price goes over the horizon, scored so that honesty pays best.

A model says v in [-1, 1], a signed confidence. With d the sign of the return, the score is
2vd - v**2: the quadratic (Brier) rule up to a constant, so it is proper, bounded in [-3, 1], 0 for
no opinion, and cannot be gamed by size (v is clipped). The expected score of a model that believes
E[d] = m is greatest at v = m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.streams.contract.emission import emission_of, tier_shares
from coordinator.streams.log.finite import is_number


def build_input(feed_records: Sequence[Any]) -> dict[str, Any]:
    """`{symbol, asof_ts (ms), candles: [{ts (open, ms), open, high, low, close, volume}]}`, oldest first.

    Ticks give `ticks: [{ts, price}]` instead. `feed_records` are raw inputs up to now: the last 120 where the contract
    leaves `input_records` as it is.
    """
    last = feed_records[-1]
    head = {"symbol": last.subject, "asof_ts": last.at}
    if last.kind == "candle":
        return head | {"candles": [{"ts": record.ts_event, **record.values} for record in feed_records]}
    return head | {"ticks": [{"ts": record.ts_event, **record.values} for record in feed_records]}


def _price(record: Any) -> float:
    values = record.values
    return float(values["close"] if "close" in values else values["price"])


def resolve_ground_truth(feed_records: Sequence[Any]) -> dict[str, Any] | None:
    """From entry (first record) to horizon (last): prices, return as a fraction, direction. None: no truth."""
    entry, resolved = _price(feed_records[0]), _price(feed_records[-1])
    if entry == 0:
        return None
    change = (resolved - entry) / abs(entry)
    return {"entry_price": entry, "resolved_price": resolved, "return": change, "direction_up": change > 0}


def score_prediction(prediction: Any, ground_truth: Any) -> dict[str, Any]:
    """2vd - v**2 with v = clip(value, -1, 1), d = sign(return). In [-3, 1]."""
    value = min(1.0, max(-1.0, prediction.value))
    change = ground_truth.return_
    direction = (change > 0) - (change < 0)
    return {"value": 2.0 * value * direction - value * value}


def aggregate_snapshot(score_results: Sequence[Any]) -> dict[str, float]:
    """The mean of every numeric field over successful scores. Booleans are not numbers."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for result in score_results:
        if not result.success:
            continue
        for name, value in result:
            if is_number(value):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


def build_emission(
    ranked_entries: Sequence[dict[str, Any]],
    crunch_pubkey: str | None,
    compute_provider: str | None = None,
    data_provider: str | None = None,
) -> dict[str, Any]:
    """Tiers: rank 1 takes 35 %, 2-5 10 % each, 6-10 5 % each (seed); see `emission.tier_shares` for ties.

    `ranked_entries` are dicts with `model_id` and `rank` (equal rank means tied), usually in order of rank.
    `cruncher_index` is the position in that list. A provider named takes all of its own pool.
    """
    by_rank = sorted(range(len(ranked_entries)), key=lambda i: ranked_entries[i]["rank"])
    shares = dict(zip(by_rank, tier_shares([ranked_entries[i]["rank"] for i in by_rank]), strict=True))
    in_order = {i: shares[i] for i in range(len(ranked_entries))}
    return emission_of(in_order, crunch_pubkey, compute_provider, data_provider)
