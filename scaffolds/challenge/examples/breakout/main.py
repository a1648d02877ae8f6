"""Breakout: a close beyond the range of the last hour tends to go on.

Silent most of the time; an opinion only outside the range, stronger the further outside.
"""

from __future__ import annotations

from coordinator.scaffolds.challenge.tracker import TrackerBase

LOOKBACK = 60
CANDLES_MIN = 3
CONFIDENCE_MAX = 0.25


class Breakout(TrackerBase):
    """Follows a close that leaves the range of the candles before it."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """0 inside the range; beyond it the distance in ranges, capped."""
        candles = self.candles(subject)[-LOOKBACK - 1 :]
        if len(candles) < CANDLES_MIN:
            return {"value": 0.0}
        before, last = candles[:-1], candles[-1]["close"]
        top = max(candle["high"] for candle in before)
        bottom = min(candle["low"] for candle in before)
        if bottom <= last <= top or top <= bottom:
            return {"value": 0.0}
        beyond = (last - top if last > top else last - bottom) / (top - bottom)
        return {"value": max(-CONFIDENCE_MAX, min(CONFIDENCE_MAX, 2.0 * beyond))}
