"""The base class of every model in this challenge.

A model gets market data by `tick` and is asked for densities by `predict`. It runs in a process of
its own, one call at a time. Only the standard library is used here, so that a participant can copy
this file and nothing else.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

BASIS_POINT = 1e-4
SCALE_MIN, SCALE_MAX = 0.01, 10_000.0


class TrackerBase:
    """Subclass it once in `main.py`, keep the constructor free of arguments, and override `predict`.

    Between calls the object lives on: whatever `tick` stores, `predict` can use. It may be
    constructed anew at any time; the next tick brings the last candles again: 120, unless
    the challenge says another number, and more of them in a model's first tick where it says so.
    """

    def __init__(self) -> None:
        self._data: dict[str, dict[str, Any]] = {}

    def tick(self, data: dict[str, Any]) -> None:
        """Take what is known now: `{"symbol", "asof_ts" (ms), "candles": [...]}`, the newest candle last.

        A candle is `{"ts" (open, ms), "open", "high", "low", "close", "volume"}`, all floats but `ts`,
        closed at `asof_ts` or before. Each tick holds the whole window, so only the last one is kept.

        A challenge that asks several subjects together gives `{subject: {"symbol", ..}, ..}` instead. One whose
        contract says so in `call_method` gives `tick` and `predict` other arguments, such as the model's `performance`.
        """
        self._data[data["symbol"]] = data

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, Any]:
        """Answer `{"steps": [..]}`: a density (see `mixture`) for each `step_seconds` up to `horizon_seconds`, of how
        much the price changes within that step, in basis points.

        The error is the CRPS: least on average for who says the true chances, neither too wide nor too narrow.
        """
        raise NotImplementedError("override predict(subject, horizon_seconds, step_seconds)")

    def candles(self, subject: str) -> list[dict[str, float]]:
        """The candles of `subject` as of the last tick, oldest first; empty before the first tick."""
        candles: list[dict[str, float]] = self._data.get(subject, {}).get("candles", [])
        return candles

    def changes(self, subject: str) -> list[float]:
        """The change from each close to the next in basis points; one shorter than `candles`."""
        closes = [float(candle["close"]) for candle in self.candles(subject)]
        return [(after / before - 1.0) / BASIS_POINT for before, after in pairwise(closes) if before > 0]


def mixture(*components: tuple[float, float, float]) -> dict[str, Any]:
    """A density as an answer has it, of one to three (weight, loc, scale); scales are kept within what is accepted."""
    return {
        "type": "mixture",
        "components": [
            {
                "weight": weight,
                "density": {
                    "type": "builtin",
                    "name": "norm",
                    "params": {"loc": loc, "scale": min(SCALE_MAX, max(SCALE_MIN, scale))},
                },
            }
            for weight, loc, scale in components
        ],
    }
