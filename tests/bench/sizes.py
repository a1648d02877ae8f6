"""How much each row of the bench does, in full and in a quick run."""

from __future__ import annotations

import msgspec

from bench import pipeline


class Sizes(msgspec.Struct, frozen=True):
    """How much is done. `quick` proves that the bench works, and measures nothing."""

    quick: bool
    scoring: pipeline.Sizes
    rounds: int
    horizon_rounds: int
    horizon_rounds_per_second: float
    serving_seconds: float
    few: int
    many: int
    stretches: int
    models: int
    model_rounds: int
    live_rounds: int
    listeners: int
    node_seconds: float
    restart_minutes: int
    restart_age: int
    backtest_rounds: int
    plan_rounds: int
    plan_models: int


FULL = Sizes(
    quick=False,
    scoring=pipeline.Sizes(7_000, 3_000),
    rounds=500,
    horizon_rounds=150,
    horizon_rounds_per_second=5.0,
    serving_seconds=5.0,
    few=10_000,
    many=1_000_000,
    stretches=5,
    models=50,
    model_rounds=60,
    live_rounds=3_000,
    listeners=500,
    node_seconds=30.0,
    restart_minutes=600,
    restart_age=100,
    backtest_rounds=8_640,
    plan_rounds=1_440,
    plan_models=100,
)
QUICK = Sizes(
    quick=True,
    scoring=pipeline.Sizes(120, 20),
    rounds=5,
    horizon_rounds=10,
    horizon_rounds_per_second=10.0,
    serving_seconds=0.5,
    few=6_000,
    many=12_000,
    stretches=1,
    models=2,
    model_rounds=3,
    live_rounds=20,
    listeners=5,
    node_seconds=3.0,
    restart_minutes=60,
    restart_age=2,
    backtest_rounds=120,
    plan_rounds=60,
    plan_models=3,
)
