"""How an answer is scored: the function that the node itself calls.

An answer is v in [-1, 1], what happened is d = -1, 0 or 1 for a price that fell, stood still or rose. The score is
2vd - v^2, the quadratic rule. Only the standard library is used, so that a participant can run it anywhere.
"""

from __future__ import annotations

from typing import Any

SCORE_MIN, SCORE_MAX = -3.0, 1.0


def score(value: float, change: float) -> float:
    """The score of one answer, in [-3, 1]; more is better and 0 is what no opinion gets.

    `value` is the answer, clipped to [-1, 1]: beyond 1 there is nothing to gain. `change` is the relative change of
    the price over the horizon; only its sign counts.
    """
    clipped = min(1.0, max(-1.0, value))
    direction = (change > 0) - (change < 0)
    return 2.0 * clipped * direction - clipped * clipped


def score_prediction(prediction: Any, ground_truth: Any) -> dict[str, float]:
    """What the node calls: `prediction.value` is the answer, `ground_truth.return_` the change of the price."""
    return {"value": score(prediction.value, ground_truth.return_)}
