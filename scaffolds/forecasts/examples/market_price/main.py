"""Says what the market says: the yardstick."""

from __future__ import annotations

from coordinator.scaffolds.forecasts.tracker import TrackerBase


class MarketPrice(TrackerBase):
    """The price of a yes."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """0.5 where no market says anything."""
        return {"probability": self.market()}
