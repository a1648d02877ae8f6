"""How an answer is scored: the function that the node itself calls.

A round is a table with a row per item, and an answer says a number between 0 and 1 for each. The score is the rank
correlation (Spearman 1904) of what was said with what came; ties have their mean rank. A stake wins or burns
stake x clipped score. Only the standard library is used, so that a participant can run it anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FACTOR, CLIP = 1.0, 0.25
"""A round moves a stake by FACTOR x score, and by CLIP of it at most."""


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1 on; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks_of_values = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks_of_values[place] = (start + 1 + end) / 2
        start = end
    return ranks_of_values


def rank_correlation(predicted: Sequence[float], came: Sequence[float]) -> float:
    """In [-1, 1]; 0 where all predicted values are equal, or all true ones."""
    predicted_ranks, true_ranks = ranks(predicted), ranks(came)
    mean = (len(predicted_ranks) + 1) / 2
    both = math.fsum((a - mean) * (b - mean) for a, b in zip(predicted_ranks, true_ranks, strict=True))
    spread = math.fsum((a - mean) ** 2 for a in predicted_ranks) * math.fsum(
        (b - mean) ** 2 for b in true_ranks
    )
    return both / math.sqrt(spread) if spread else 0.0


def score_table(
    predicted: Mapping[str, float], came: Mapping[str, float | None], stake: float
) -> tuple[float, float]:
    """(the score, what the stake wins or burns). Both tables are by row id; None: the true value is unknown.

    Raises ValueError for an answer that leaves out a row, or has the same value in all rows.
    """
    if missing := came.keys() - predicted.keys():
        message = f"{len(missing)} rows are missing, {min(missing)!r} for one"
        raise ValueError(message)
    if len(set(predicted.values())) <= 1:
        message = "all rows have the same value"
        raise ValueError(message)
    pairs = [(predicted[row], value) for row, value in came.items() if value is not None]
    score = rank_correlation([value for value, _ in pairs], [value for _, value in pairs])
    return score, stake * max(-CLIP, min(CLIP, FACTOR * score))
