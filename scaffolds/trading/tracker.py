"""The base class of every model in this challenge.

A model gets market data by `tick` and is asked for a position by `predict`. It runs in a process of
its own, one call at a time. Only the standard library is used here, so that a participant can copy
this file and nothing else.
"""

from __future__ import annotations

from typing import Any


class TrackerBase:
    """Subclass it once in `main.py`, keep the constructor free of arguments, and override `predict`.

    Between calls the object lives on: whatever `tick` stores, `predict` can use. It may be
    constructed anew at any time; the next tick brings the last candles of its subject again: 120, unless
    the challenge says another number, and more of them in a model's first tick where it says so.
    """

    def __init__(self) -> None:
        self._data: dict[str, dict[str, Any]] = {}

    def tick(self, data: dict[str, Any]) -> None:
        """Take what is known now: `{"symbol", "asof_ts" (ms), "candles": [...]}`, the newest candle last.

        A candle is `{"ts" (open, ms), "open", "high", "low", "close", "volume"}`, all floats but `ts`,
        closed at `asof_ts` or before. Each tick holds one subject's whole window; subjects are kept apart.

        A challenge that asks several subjects together gives `{subject: {"symbol", ..}, ..}` instead. One whose
        contract says so in `call_method` gives `tick` and `predict` other arguments, such as the model's `performance`.
        """
        self._data[data["symbol"]] = data

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer `{"signal": s}`, s in [-1, 1]: the position in `subject` that you want from now on, as a share of the
        stake; below 0 is short. To say the same again trades nothing.

        Both numbers can be ignored: you are asked again a minute later.
        """
        raise NotImplementedError("override predict(subject, horizon_seconds, step_seconds)")

    def candles(self, subject: str) -> list[dict[str, float]]:
        """The candles of `subject` as of the last tick, oldest first; empty before the first tick."""
        candles: list[dict[str, float]] = self._data.get(subject, {}).get("candles", [])
        return candles

    def closes(self, subject: str) -> list[float]:
        """The closing prices of `candles(subject)`."""
        return [float(candle["close"]) for candle in self.candles(subject)]
