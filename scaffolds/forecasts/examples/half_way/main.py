"""Trusts the market half: things mostly stay as they are, so that a yes is rarer than it is priced."""

from __future__ import annotations

from coordinator.scaffolds.forecasts.tracker import TrackerBase

BASE_RATE, TRUST = 0.35, 0.5


class HalfWay(TrackerBase):
    """Half way between the market and how often such questions resolve to yes."""

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Between the base rate and the price."""
        return {"probability": BASE_RATE + TRUST * (self.market() - BASE_RATE)}
