"""Volume pressure: where in its range a candle closes, weighted by what was traded.

Many closes near the high on large volume: buyers are pressing.
"""

from __future__ import annotations

from coordinator.scaffolds.challenge.tracker import TrackerBase

LOOKBACK = 15
CONFIDENCE_MAX = 0.18


class VolumePressure(TrackerBase):
    """Volume-weighted place of the close between low and high."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """-1 for all closes at the low, 1 for all at the high, times the cap."""
        pressed = traded = 0.0
        for candle in self.candles(subject)[-LOOKBACK:]:
            width = candle["high"] - candle["low"]
            if width > 0.0:
                place = (2.0 * candle["close"] - candle["high"] - candle["low"]) / width
                pressed += place * candle["volume"]
                traded += candle["volume"]
        return {"value": CONFIDENCE_MAX * pressed / traded if traded > 0.0 else 0.0}
