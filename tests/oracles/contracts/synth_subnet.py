"""The Synth subnet (SN50) as a contract: paths of prices, scored by the CRPS of their changes within the round."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import BaseModel

from coordinator.streams.contract import Board, CrunchContract, Pool, by_softmax

BP = 1e4
CAP_MEDIANS, VOLATILITY = 10, 5.25


class Paths(BaseModel):
    """[start, increment, [p0, .., pN], ..]."""

    answer: list[Any]


class Real(BaseModel):
    """The real prices at each increment from the start on; None where there is none."""

    prices: list[float | None]


class Score(BaseModel):
    value: float
    fill: float
    crps: float | None = None


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


def competition(label: str, share: float, beta: float, weights: dict[str, float]) -> tuple[Board, Pool]:
    """A board of the weighted mean of all prompts' scores, and a pool that is shared by softmax."""
    board = Board(name=label, scope_keys=[label], weights=weights, weigh="scores", every_scope=False)
    return board, Pool(name=label, key=label, weight=share, rule=by_softmax(beta=beta))


def bp(prices: Any, first: int, last: int) -> Any:
    """The change in basis points."""
    return (prices[last] - prices[first]) / prices[first] * BP


def steps_bp(prices: Any) -> Any:
    """The change of each step in basis points, along the last axis."""
    return np.diff(prices, axis=-1) / prices[..., :-1] * BP


def contract(pubkey: str, prompt: dict[str, Any], rule: str, **fields: Any) -> CrunchContract:
    """Capped, minus the best; who gave no valid answer has the fill. Less is better."""

    def score_round(answers: Any, truth: Real, _: Any) -> list[Any]:
        real = np.array([np.nan if one is None else one for one in truth.prices])
        read = [None if one is None else paths_of(one.answer, prompt) for one in answers.outputs]
        found = [crps(one, real, prompt) if isinstance(one, np.ndarray) else None for one in read]
        valid = np.array([one for one in found if one is not None])
        if not valid.size:
            return [None] * len(found)
        if rule == "2026-05":
            fill = cap = float(np.percentile(valid, 90))
        else:
            cap = CAP_MEDIANS * float(np.median(valid))
            fill = float(np.percentile(valid[valid <= cap], 95))
        best = float(valid.min())
        of = {"fill": fill}
        return [
            of | ({"value": fill - best} if one is None else {"value": min(one, cap) - best, "crps": one})
            for one in found
        ]

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Paths, ground_truth_type=Real, score_type=Score, score_round=score_round,
        resolve_ground_truth=lambda records: {"prices": [one.values.get("price") for one in records]},
        absence_policy="scored", output_max_bytes=1_000_000, **fields,
    )  # fmt: skip
