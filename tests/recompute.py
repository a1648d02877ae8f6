"""A second opinion: the whole job computed again by other code, from the candle file and the bytes in the topics.

Nothing of the project's own arithmetic is imported here, only plain json, csv, Decimal and Fraction. So a bug in the
stages is not repeated here.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

MINUTE = 60_000
TIERS = [35, 10, 10, 10, 10, 5, 5, 5, 5, 5]


def closes(path: Path) -> dict[int, Decimal]:
    """close time in ms -> close, from a CSV or CSV.gz of one-minute candles with a header."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as stream:
        rows = list(csv.DictReader(stream))
    opened = next(name for name in rows[0] if name.startswith("open_time"))
    return {int(row[opened]) + MINUTE: Decimal(row["close"]) for row in rows}


def events(records: list[bytes]) -> list[dict[str, Any]]:
    """Every event of an undisturbed topic, in order. Asserts that the topic begins with its only birth record, and that
    decisions are numbered 1, 2, 3 without a gap.
    """
    out: list[dict[str, Any]] = []
    seq = 0
    births = [
        offset for offset, record in enumerate(records) if json.loads(record).get("kind") == "TopicBorn"
    ]
    assert births == [0]
    for record in records[1:]:
        append = json.loads(record)
        if append.get("claim") or append.get("state"):
            continue
        if append.get("part", [1, 1])[0] == 1:
            seq += 1
        assert append["seq"] == seq, (append["seq"], seq)
        out.extend(append["events"])
    return out


def units(value: float) -> int:
    """A score in billionths, half-even from its shortest decimal form."""
    return int((Decimal(repr(value)) * 10**9).to_integral_value(ROUND_HALF_EVEN))


def score(value: float, entry: Decimal, resolved: Decimal) -> int:
    """2vd - v**2 in billionths; v clipped to [-1, 1], d the sign of the move."""
    clipped = max(-1.0, min(1.0, value))
    direction = (resolved > entry) - (resolved < entry)
    return units(2.0 * clipped * direction - clipped * clipped)


def mean(total: int, n: int) -> int:
    """Half-even mean of integers."""
    return round(Fraction(total, n))


def scores_by_prediction(predictions: list[dict[str, Any]], prices: dict[int, Decimal]) -> dict[str, int]:
    """input/model -> score in billionths, for every answer whose horizon is inside the file. Horizon: one minute."""
    out = {}
    rosters = {}
    for event in predictions:
        data = event["data"]
        if event["kind"] == "RoundOpened":
            rosters[data["input_id"]] = [asked["model_id"] for asked in data["roster"]]
        if event["kind"] != "ScopeAnswered":
            continue
        point = int(data["input_id"].rsplit("/", 1)[1])
        for index, output in zip(data["models"], data["outputs"], strict=True):
            if output is not None and point + MINUTE in prices:
                key = f"{data['input_id']}/{rosters[data['input_id']][index]}"
                out[key] = score(output["value"], prices[point], prices[point + MINUTE])
    return out


def period_means(scores: dict[str, int], start: int, end: int) -> dict[str, int]:
    """model -> mean score over [start, end) by resolvable time."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for key, value in scores.items():
        input_id, model_id = key.rsplit("/", 1)
        if start <= int(input_id.rsplit("/", 1)[1]) + MINUTE < end:
            sums[model_id][0] += value
            sums[model_id][1] += 1
    return {model_id: mean(*sum_and_count) for model_id, sum_and_count in sums.items()}


def shares(means: dict[str, int]) -> dict[str, int]:
    """model -> frac64 by the default tiers. Means must be distinct (no ties are handled here)."""
    assert len(set(means.values())) == len(means)
    order = sorted(means, key=lambda model_id: -means[model_id])
    left = Fraction(100 - sum(TIERS[: len(order)]), len(order))
    exact = [(Fraction(TIERS[i] if i < len(TIERS) else 0) + left) * 10**7 for i in range(len(order))]
    out = [int(share) for share in exact]
    by_remainder = sorted(range(len(out)), key=lambda i: (out[i] - exact[i], i))
    for i in by_remainder[: 10**9 - sum(out)]:
        out[i] += 1
    return {model_id: share for model_id, share in zip(order, out, strict=True) if share}
