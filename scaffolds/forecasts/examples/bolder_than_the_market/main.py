"""Believes that markets are too timid: what is likely is likelier still."""

from __future__ import annotations

from coordinator.scaffolds.forecasts.tracker import TrackerBase

POWER = 1.5


class BolderThanTheMarket(TrackerBase):
    """Takes the odds of the market to a power."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Further from 0.5 than the market, on the same side."""
        yes, no = self.market() ** POWER, (1 - self.market()) ** POWER
        return {"probability": yes / (yes + no)}
