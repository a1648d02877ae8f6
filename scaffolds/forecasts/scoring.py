"""How a forecast is scored: the function that the node itself calls.

A question is open for a while, and a model may change its mind. The score is the mean over that time of the squared
error (Brier 1950) of what stood: 0 is perfect, 0.25 is what "no idea" gets, 1 is the worst, and less is better.
Before the first answer 0.5 stands. Only the standard library is used, so that a participant can run it anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

UNKNOWN = 0.5
"""What stands before the first answer, and for who gives none."""


def brier(answers: Sequence[tuple[int, float]], opens_at: int, closes_at: int, outcome: int) -> float:
    """The squared error of what stood, weighted by how long it stood.

    `answers`: (when, in ms; the probability, 0..1), oldest first. `outcome` is 1 or 0.
    """
    stood = [(opens_at, UNKNOWN), *answers, (closes_at, UNKNOWN)]
    times = [min(max(at, opens_at), closes_at) for at, _ in stood]
    parts = [
        (end - start) * (probability - outcome) ** 2
        for start, end, (_, probability) in zip(times, times[1:], stood, strict=False)
    ]
    return math.fsum(parts) / (closes_at - opens_at)


def score_prediction(prediction: Any, truth: Any) -> dict[str, float]:
    """`prediction` has all valid answers with their times, as `Questions(counts="history")` gives them."""
    answers = [(answer["at"], answer["output"]["probability"]) for answer in prediction["answers"]]
    return {"value": brier(answers, prediction["opens_at"], prediction["closes_at"], truth.outcome)}
