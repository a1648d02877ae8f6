"""Buys once, and holds: one fee, and the market's own way from there. The yardstick."""

from __future__ import annotations

from coordinator.scaffolds.trading.tracker import TrackerBase

SHARE = 0.5


class BuyAndHold(TrackerBase):
    """Half of the stake, for ever."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """The same each time, so that nothing more is traded."""
        return {"signal": SHARE}
