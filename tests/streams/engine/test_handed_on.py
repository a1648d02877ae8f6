"""The engine hands decisions from stage to stage as objects. The log must be the one that stages make when they read
its bytes.

So a value must equal what its JSON is read as, and no stage may change an object that it received.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from tests.streams.audit.test_whole_rounds import betting
from tests.streams.build import HASH, MINUTE, PUBKEY, T0
from tests.streams.engine import test_told_to_models
from tests.streams.engine.test_engine import DECIDED

from coordinator.streams.contract import (
    AggregationWindow,
    CrunchContract,
    Ensemble,
    Ewma,
    ScheduledPrediction,
    TopN,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, MemoryLog
from coordinator.streams.events import BanModel, BanModelData, RoundScored
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import decode_events, parts_of
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles
from coordinator.streams.topology import TOPICS

ROUNDS = 150
OF = Subscription("generated", "BTCUSDT", "candle", "1m")
CANDLES = list(generated_candles(OF, T0, T0 + (ROUNDS - 1) * MINUTE, seed=3))
SETTINGS = Settings(feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=3600)
HALF_A_LETTER = "no opinion \ud800"


def moody(data: dict[str, Any], call: dict[str, Any]) -> Any:
    if data["candles"][-1]["ts"] // MINUTE % 7 == 0:
        raise ValueError(HALF_A_LETTER)
    return {"value": 0.25}


def models() -> Functions:
    return Functions({"flat": lambda data, call: 1, "moody": moody, "nan": lambda data, call: float("nan")})


class OddTruth(BaseModel):
    """Values that JSON reads as something else than was written, unless the writer takes care."""

    by_day: dict[int, float]
    pair: tuple[int, float]
    anything: Any


def odd_truth(records: list[Any]) -> dict[str, Any]:
    close = records[-1].values["close"]
    return {"by_day": {1: close, 2: 3}, "pair": (1, 2), "anything": {1: (close, 2**60), "a": -0.0}}


def odd_score(prediction: Any, truth: OddTruth) -> dict[str, float]:
    return {"value": prediction.value * truth.pair[1] + truth.by_day[2] / 1000}


CONTRACTS: dict[str, CrunchContract] = {
    "usual": CrunchContract(crunch_pubkey=PUBKEY),
    "two scopes, windows of every rule, charges": CrunchContract(
        crunch_pubkey=PUBKEY,
        absence_policy="worst",
        ground_truth_type=OddTruth,
        resolve_ground_truth=odd_truth,
        score_prediction=odd_score,
        scheduled_predictions=[
            ScheduledPrediction(scope_key="1m", interval_seconds=60),
            ScheduledPrediction(scope_key="5m", interval_seconds=300),
        ],
        aggregation={
            "windows": [
                AggregationWindow(name="score_recent", hours=1),
                AggregationWindow(name="last", last=9, least=3),
                AggregationWindow(name="ewma", rule=Ewma(alpha=0.1)),
            ]
        },
    ),
    "ensembles": CrunchContract(
        crunch_pubkey=PUBKEY,
        ensembles=[Ensemble(name="mean"), Ensemble(name="past", filter=TopN(n=1), hours=1)],
    ),
    "scored as a whole": CrunchContract(crunch_pubkey=PUBKEY, score_round=betting, absence_policy="scored"),
}


def of_contract(contract: CrunchContract) -> Engine:
    """A market of one subject; a model is banned on the way."""
    engine = Engine(lambda _: contract, models())
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    for number, candle in enumerate(CANDLES):
        if number % 50 != 9:  # a gap now and then
            engine.feed(candle.at, [candle])
        if number == ROUNDS // 2:
            ban = BanModelData(model_id="flat", reason="a test")
            engine.command(BanModel(id="ban", at=candle.at, data=ban))
    return engine


SCENES: dict[str, Callable[[], Engine]] = {
    name: lambda contract=contract: of_contract(contract) for name, contract in CONTRACTS.items()
} | {
    "asked together, told of their past": lambda: test_told_to_models.fed(
        test_told_to_models.engine(test_told_to_models.Pupil())
    )
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_decisions_handed_on_as_objects_equal_their_bytes(scene, monkeypatch):
    handed: list[Decision] = []
    share = MemoryLog.share

    def watched(log: MemoryLog, decision: Decision) -> None:
        if decision.is_decoded:  # otherwise a reader found it in the log, after what was handed on
            handed.append(decision)
        share(log, decision)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryLog, "share", watched)
        quick = scene()
    assert {handed_on.topic for handed_on in handed} >= set(DECIDED) - {"commands"}
    scored = [event for event in quick.log.events("scores") if isinstance(event, RoundScored)]
    assert sum(len(event.data.models) - len(event.data.unscored) for event in scored) > ROUNDS // 2
    for decision in handed:  # checked at the end, where a change by any stage would show
        read = [event for body in decision.bodies for event in decode_events(body)]
        assert decision.events == read
        assert parts_of(decision.events)[1] == [bytes(body) for body in decision.bodies]
        assert shape(decision.events) == shape(read)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryLog, "share", lambda log, decision: None)
        slow = scene()
    assert {topic: quick.log[topic] for topic in TOPICS} == {topic: slow.log[topic] for topic in TOPICS}


def shape(value: Any) -> Any:
    """The types within a value: 1 and 1.0 are equal, but divide differently."""
    if isinstance(value, msgspec.Struct):
        return type(value), [shape(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return dict, [(shape(key), shape(inner)) for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(inner) for inner in value]
    return type(value)
