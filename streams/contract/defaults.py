"""The default challenge: predict the direction of the price over the horizon.

These are the functions of a contract whose author sets none. A model answers with v in [-1, 1], a signed confidence.
With d the sign of the return, the score is 2vd - v**2. This is the quadratic (Brier) rule up to a constant, so it is
proper: a model that believes E[d] = m has its greatest expected score at v = m. The score is in [-3, 1] and 0 for no
opinion. v is clipped, so a huge answer gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.streams.contract.emission import emission_of, tier_shares
from coordinator.streams.log.finite import is_number


def build_input(feed_records: Sequence[Any]) -> dict[str, Any]:
    """`{symbol, asof_ts (ms), candles: [{ts (open, ms), open, high, low, close, volume}]}`, oldest first.

    Ticks give `ticks: [{ts, price}]` instead. `feed_records` are the raw inputs up to now: the last 120, unless the
    contract sets `input_records`.
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
    """The prices at entry (first record) and horizon (last record), the return as a fraction, the direction.

    None, which means no truth, if the entry price is 0.
    """
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
    """The mean of every numeric field over the successful scores. Booleans are not numbers."""
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
    """Tiers: rank 1 gets 35 %, ranks 2-5 get 10 % each, ranks 6-10 get 5 % each (seed). For ties see
    `emission.tier_shares`.

    `ranked_entries` are dicts with `model_id` and `rank` (equal rank means tied), usually in order of rank.
    `cruncher_index` is the position in that list. A provider that is named gets the whole pool of its kind.
    """
    by_rank = sorted(range(len(ranked_entries)), key=lambda i: ranked_entries[i]["rank"])
    shares = dict(zip(by_rank, tier_shares([ranked_entries[i]["rank"] for i in by_rank]), strict=True))
    in_order = {i: shares[i] for i in range(len(ranked_entries))}
    return emission_of(in_order, crunch_pubkey, compute_provider, data_provider)
