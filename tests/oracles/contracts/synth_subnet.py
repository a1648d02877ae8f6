"""The Synth subnet (SN50) as a contract: paths of prices, scored by the CRPS of their changes within the round."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from coordinator.streams.contract import Board, CrunchContract, Pool, by_softmax
from oracles.contracts.paths import crps, paths_of

CAP_MEDIANS = 10
ANSWER_MAX_BYTES = 4_000_000
"""1000 paths of 289 prices are 2.6 MB."""


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


def competition(label: str, share: float, beta: float, weights: dict[str, float]) -> tuple[Board, Pool]:
    """A board of the weighted mean of all prompts' scores, and a pool that is shared by softmax."""
    board = Board(name=label, scope_keys=[label], weights=weights, weigh="scores", every_scope=False)
    return board, Pool(name=label, key=label, weight=share, rule=by_softmax(beta=beta))


def contract(pubkey: str, prompt: dict[str, Any], rule: str, **fields: Any) -> CrunchContract:
    """Capped, minus the best; who gave no valid answer has the fill. Less is better."""

    def score_round(answers: Any, truth: Real, _: Any) -> list[Any]:
        real = np.array([np.nan if one is None else one for one in truth.prices])
        read = [
            None if one is None else paths_of(one.answer, prompt, characters=rule == "2026-05")
            for one in answers.outputs
        ]
        found = [crps(one, real, prompt) if isinstance(one, np.ndarray) else None for one in read]
        found = [one if one is not None and np.isfinite(one) else None for one in found]
        valid = np.array([one for one in found if one is not None])
        if not valid.size:
            return [None] * len(found)
        if rule == "2026-05":
            fill = cap = float(np.percentile(valid, 90))
        else:
            cap = CAP_MEDIANS * float(np.median(valid)) or np.inf
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
        absence_policy="scored", output_max_bytes=ANSWER_MAX_BYTES, **fields,
    )  # fmt: skip
