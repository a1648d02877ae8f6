"""The base class of every model in this challenge.

A model gets a table by `tick` and is asked for a number per row by `predict`. It runs in a process of its own, one call
at a time. Only the standard library is used here, so that a participant can copy this file and nothing else.
"""

from __future__ import annotations

from typing import Any


class TrackerBase:
    """Subclass it once in `main.py`, keep the constructor free of arguments, and override `score_of` (or `predict`).

    Between calls the object lives on, and it may be constructed anew at any time. Each round is asked once, and again
    if its table is posted anew.
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}

    def tick(self, data: dict[str, Any]) -> None:
        """Take the round: `{"columns": {"id": [..], name of a feature: [..], ..}}`, and `round_id`, `question_id`,
        `opens_at`, `closes_at` (ms).
        """
        self.columns = data.get("columns", {})

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """Answer `{"columns": {"id": [..], "prediction": [..]}}`: a number in [0, 1] for each row of the last `tick`.
        Only their order counts.

        The arguments are those of challenges of a market and say nothing here.
        """
        predictions = [min(max(self.score_of(row), 0.0), 1.0) for row in self.rows()]
        return {"columns": {"id": self.columns.get("id", []), "prediction": predictions}}

    def score_of(self, row: dict[str, float]) -> float:
        """A number in [0, 1] for a row of features; more is better."""
        raise NotImplementedError("override score_of(row)")

    def rows(self) -> list[dict[str, float]]:
        """The features of each row, by name."""
        names = [name for name in self.columns if name != "id"]
        cells = zip(*(self.columns[name] for name in names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in cells]
