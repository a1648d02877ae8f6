"""Paths of prices: what is refused, and the CRPS of their changes against the real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BP, VOLATILITY = 1e4, 5.25


def paths_of(answer: list[Any], prompt: dict[str, Any]) -> Any:
    """Shape (simulations, points), or why there is none: a text."""
    points = prompt["length"] // prompt["increment"] + 1
    if len(answer) < 2 or answer[0] != prompt["start"] or answer[1] != prompt["increment"]:
        return "start or increment"
    if len(answer) - 2 != prompt["simulations"]:
        return "number of paths"
    if any(not isinstance(path, list) or len(path) != points for path in answer[2:]):
        return "number of points"
    numbers = [price for path in answer[2:] for price in path]
    if any(isinstance(p, bool) or not isinstance(p, (int, float)) or not math.isfinite(p) for p in numbers):
        return "not a number of at most 8 digits"
    if any(len(f"{price}".replace(".", "").strip("0")) > 8 for price in numbers):
        return "not a number of at most 8 digits"
    return "zero price" if 0 in numbers else np.array(answer[2:], dtype=float)


def pairs_crps(samples: Any, real: float) -> float:
    """mean |y - x| - 1/2 mean |y - y'|, over all pairs."""
    spread = np.abs(samples[:, None] - samples[None, :]).mean()
    return float(np.abs(samples - real).mean() - spread / 2)


def crps(paths: Any, real: Any, prompt: dict[str, Any]) -> float:
    """Summed over the intervals: changes in basis points; prices (`_abs`) relative to the last real one; changes from the
    start (`_gaps`); and the volatility of blocks. What has no real price is left out.
    """
    total, increment = 0.0, prompt["increment"]
    for name, seconds in prompt["intervals"].items():
        k = seconds // increment
        if name.endswith("_abs"):
            k = min(k, len(real) - 1)
            last = real[~np.isnan(real)][-1]
            known = [i for i in range(k, len(real), k) if not np.isnan(real[i])]
            total += sum(pairs_crps(paths[:, i], real[i]) for i in known) / last * BP
            continue
        ends = [k] if name.endswith("_gaps") else range(k, len(real), k)
        for end in ends:
            change = bp(real, end - k, end)
            if not np.isnan(change):
                total += pairs_crps(bp(paths.T, end - k, end), change)
    for seconds in prompt["vol_blocks"]:
        k = seconds // increment
        starts = range(0, len(real) - k, k)
        for start in starts:
            volatility = np.std(steps_bp(real[start : start + k + 1]), ddof=1)
            if not np.isnan(volatility):
                of_paths = np.std(steps_bp(paths[:, start : start + k + 1]), axis=1, ddof=1)
                total += (
                    VOLATILITY / (len(prompt["vol_blocks"]) * len(starts)) * pairs_crps(of_paths, volatility)
                )
    return total


def bp(prices: Any, first: int, last: int) -> Any:
    """The change in basis points."""
    return (prices[last] - prices[first]) / prices[first] * BP


def steps_bp(prices: Any) -> Any:
    """The change of each step in basis points, along the last axis."""
    return np.diff(prices, axis=-1) / prices[..., :-1] * BP
