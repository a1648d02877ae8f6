"""The example models: finite, moderate, and clearly different from each other."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.infra.models.host.model_folder import read_models
from coordinator.scaffolds.challenge import tracker
from coordinator.scaffolds.challenge.tracker import TrackerBase

EXAMPLES = Path(tracker.__file__).parent / "examples"
ENTRIES = read_models(EXAMPLES)


def new_model(name: str) -> TrackerBase:
    module = importlib.import_module(f"coordinator.scaffolds.challenge.examples.{name}.main")
    own = [member for member in vars(module).values() if getattr(member, "__module__", "") == module.__name__]
    (tracker_type,) = [
        member for member in own if isinstance(member, type) and issubclass(member, TrackerBase)
    ]
    model = tracker_type()
    assert isinstance(model, TrackerBase)
    return model


def market(seed: int, n: int, step: float = 0.001) -> list[dict[str, float]]:
    """A random walk of `n` minute candles. With step 0 the price never moves."""
    rng = random.Random(seed)
    price, candles = 100.0, []
    for index in range(n):
        opened, price = price, price * (1 + rng.gauss(0, step))
        high, low = max(opened, price) * (1 + step / 3), min(opened, price) * (1 - step / 3)
        candle = {"ts": index * 60_000, "open": opened, "high": high, "low": low, "close": price}
        candles.append(candle | {"volume": rng.random() * 10})
    return candles


def asked(model: TrackerBase, candles: list[dict[str, float]], horizon_seconds: int = 60) -> float:
    model.tick({"symbol": "BTCUSDT", "asof_ts": len(candles) * 60_000, "candles": candles})
    return model.predict("BTCUSDT", horizon_seconds, 15)["value"]


def windows() -> Iterator[list[dict[str, float]]]:
    candles = market(7, 1000)
    for end in range(120, len(candles), 20):
        yield candles[end - 120 : end]


def test_there_are_at_least_six_and_each_has_an_owner():
    assert len(ENTRIES) >= 6
    assert len({entry.cruncher_id for entry in ENTRIES}) == len(ENTRIES)
    assert all(entry.wallet_pubkey and entry.cruncher_name for entry in ENTRIES)


@pytest.mark.parametrize("name", [entry.folder.name for entry in ENTRIES])
@pytest.mark.parametrize(
    "candles",
    [
        [],
        market(1, 1),
        market(1, 2),
        market(1, 5),
        market(1, 120),
        market(1, 120, 0.0),
        [candle | {"volume": 0.0} for candle in market(1, 120)],
    ],
    ids=["none", "one", "two", "five", "full", "flat", "no volume"],
)
def test_every_answer_is_finite_and_moderate(name: str, candles: list[dict[str, float]]):
    for horizon_seconds in (15, 60, 3600):
        value = asked(new_model(name), candles, horizon_seconds)
        assert isinstance(value, float)
        assert math.isfinite(value)
        assert abs(value) <= 0.25


def test_no_two_examples_answer_alike():
    answers = {
        entry.folder.name: [asked(new_model(entry.folder.name), w) for w in windows()] for entry in ENTRIES
    }
    assert len({tuple(values) for values in answers.values()}) == len(answers)
    for name, values in answers.items():
        if name != "small_optimist":
            assert min(values) < 0 < max(values), name


def test_before_the_first_tick_an_example_answers_without_an_opinion():
    for entry in ENTRIES:
        assert abs(new_model(entry.folder.name).predict("BTCUSDT", 60, 15)["value"]) <= 0.02


def test_a_tracker_keeps_symbols_apart():
    model = TrackerBase()
    model.tick({"symbol": "A", "asof_ts": 1, "candles": market(1, 3)})
    model.tick({"symbol": "B", "asof_ts": 1, "candles": market(2, 2)})
    assert (len(model.closes("A")), len(model.returns("B")), model.candles("C")) == (3, 1, [])
