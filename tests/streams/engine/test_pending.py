"""Models may think while the engine goes on. Every topic is the same, byte for byte, as if the engine waited for them
first.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.streams.build import DEFAULT, T0

from coordinator.streams.contract import CallMethod, PredictionScope, ScheduledPrediction
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.settings import Settings

CONTRACT = DEFAULT.model_copy(
    update={
        "scheduled_predictions": [
            ScheduledPrediction(scope_key="60s", scope=PredictionScope(horizon_seconds=60)),
            ScheduledPrediction(scope_key="180s", scope=PredictionScope(horizon_seconds=180), order=1),
        ]
    }
)
TOLD_OF_THEMSELVES = CONTRACT.model_copy(
    update={"call_method": CallMethod(tick_arguments=("data", "performance"))}
)
SETTINGS = Settings(
    feed_source="generated",
    feed_subjects=("BTCUSDT", "ETHUSDT"),
    snapshot_interval_seconds=120,
    checkpoint_interval_seconds=600,
)


class Model:
    """Answers by what it was told of its performance; by a constant where it is told nothing."""

    def __init__(self, value: float) -> None:
        self.value = value

    def tick(self, data: dict[str, Any], performance: dict[str, Any] | None = None) -> None:
        self.told = performance

    def predict(self, subject: str, horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        return {"value": self.value / (1 + len(str(self.told or "")))}


class Thinking(Functions):
    """Models that take time, so the engine must wait for them."""

    engine: Engine | None = None
    scored_meanwhile = 0

    def answers(self, *arguments: Any) -> Any:
        if self.engine is None:
            return super().answers(*arguments)
        asked = self.engine.log.end("scores")

        def wait() -> Any:
            self.scored_meanwhile += self.engine.log.end("scores") > asked
            return super(Thinking, self).answers(*arguments)

        return wait


def played(contract: Any, *, thinking: bool, every: int = 1) -> tuple[Engine, Thinking]:
    """Forty minutes of two subjects. `every` minutes come in one instant."""
    models = Thinking({"up": Model(0.5), "down": Model(-0.25), "no": lambda data, call: 1 / 0})
    engine = Engine(lambda _hash: contract, models, crunch_id=SETTINGS.crunch_id)
    models.engine = engine if thinking else None
    engine.configure(make_terms(contract, "c" * 64, SETTINGS, 0))
    sides = [
        candles([100 + n % (3 + side) for n in range(40)], subject=subject, start_ms=T0)
        for side, subject in enumerate(SETTINGS.feed_subjects)
    ]
    minutes = list(zip(*sides, strict=True))
    for first in range(0, len(minutes), every):
        records = [record for minute in minutes[first : first + every] for record in minute]
        engine.feed(records[-1].at, records)
    engine.settle()
    return engine, models


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("contract", [CONTRACT, TOLD_OF_THEMSELVES], ids=["told nothing", "told of itself"])
def test_no_topic_changes_if_the_engine_goes_on_while_the_models_think(contract, every):
    waited, _ = played(contract, thinking=False, every=every)
    went_on, _ = played(contract, thinking=True, every=every)
    assert waited.log.topics == went_on.log.topics
    assert waited.log.end("checkpoints") > 3


def test_scores_are_made_while_the_models_think():
    _, models = played(CONTRACT, thinking=True)
    assert models.scored_meanwhile > 30


def test_a_round_that_ends_at_the_instant_it_opens_is_scored_then():
    engine, models = played(CONTRACT, thinking=True, every=4)
    ends = engine.log.end("scores")
    engine.settle()
    assert ends == engine.log.end("scores")
    assert models.scored_meanwhile
