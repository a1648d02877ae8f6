"""The base class of every model in this challenge.

A model gets market data by `tick` and is asked for an opinion by `predict`. It runs in a process of
its own, one call at a time. Only the standard library is used here, so that a participant can copy
this file and nothing else.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any


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

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer `{"value": v}`, v in [-1, 1]: how sure you are that `subject` rises (> 0) or falls (< 0)
        from now to `horizon_seconds` later.

        `step_seconds` is the grid of challenges that ask for a path; here it can be ignored. The score
        is `2 v d - v^2` with d = -1, 0 or 1 for what happened: no opinion (0) scores 0, and it is best to
        answer the expected d. Someone right 52 times in 100 earns most with 0.04, and loses with 0.1.
        """
        raise NotImplementedError("override predict(subject, horizon_seconds, step_seconds)")

    def candles(self, subject: str) -> list[dict[str, float]]:
        """The candles of `subject` as of the last tick, oldest first; empty before the first tick."""
        candles: list[dict[str, float]] = self._data.get(subject, {}).get("candles", [])
        return candles

    def closes(self, subject: str) -> list[float]:
        """The closing prices of `candles(subject)`."""
        return [float(candle["close"]) for candle in self.candles(subject)]

    def returns(self, subject: str) -> list[float]:
        """Relative change from each close to the next; one shorter than `closes`."""
        closes = self.closes(subject)
        return [after / before - 1.0 for before, after in pairwise(closes) if before > 0]
