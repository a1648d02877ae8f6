"""The base class of every model in this challenge.

A model gets a question by `tick` and is asked for a probability by `predict`. It runs in a process of its own, one call
at a time. Only the standard library is used here, so that a participant can copy this file and nothing else.
"""

from __future__ import annotations

from typing import Any


class TrackerBase:
    """Subclass it once in `main.py`, keep the constructor free of arguments, and override `predict`.

    Between calls the object lives on, and it may be constructed anew at any time. A question is asked when it opens,
    each day while it is open, and when its payload changes; the last answer stands until the next one.
    """

    def __init__(self) -> None:
        self.question: dict[str, Any] = {}

    def tick(self, data: dict[str, Any]) -> None:
        """Take the question: its payload as posted (`title`, often `yes_price`: what a market says, 0..1), and
        `question_id`, `round_id`, `tags`, `opens_at` and `closes_at` (ms).
        """
        self.question = data

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer `{"probability": p}`, p in [0, 1]: how likely the question of the last `tick` resolves to yes.

        The arguments are those of challenges of a market and say nothing here.
        """
        raise NotImplementedError("override predict(subject, horizon_seconds, step_seconds)")

    def market(self) -> float:
        """What a market says of the question; 0.5 where the payload has no `yes_price` in [0, 1]."""
        price = self.question.get("yes_price")
        return float(price) if isinstance(price, int | float) and 0 <= price <= 1 else 0.5
