"""What models receive beside the usual tick: several subjects, a longer first tick, their own performance.

The engine passes it as the node does, continues from a saved state to the very same log, and the audit computes it
again.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.checked import chain_of, steps_of
from tests.memory_log import MemoryLog as Copy
from tests.streams.audit.test_whole_rounds import last_checkpoint
from tests.streams.build import HASH, MINUTE, PUBKEY, T0

from coordinator.streams import events as ev
from coordinator.streams.audit.checkpoint import STEPS, check_chain
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.contract import CallMethod, CrunchContract, PredictionScope, ScheduledPrediction
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.log.envelope import Append, encode_append, encode_decision
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles
from coordinator.streams.topology import TOPICS

SUBJECTS = ("BTCUSDT", "ETHUSDT")
ROUNDS = 150
SETTINGS = Settings(
    feed_source="generated",
    feed_subjects=SUBJECTS,
    snapshot_interval_seconds=600,
    checkpoint_interval_seconds=3600,
)
MARKETS = [
    list(
        generated_candles(
            Subscription("generated", subject, "candle", "1m"), T0, T0 + ROUNDS * MINUTE, seed=3
        )
    )
    for subject in SUBJECTS
]


def spread(prediction: Any, truth: Any) -> dict[str, float]:
    return {"value": prediction.value * 100 * (truth["BTCUSDT"].return_ - truth["ETHUSDT"].return_)}


CONTRACT = CrunchContract(
    crunch_pubkey=PUBKEY,
    scheduled_predictions=[ScheduledPrediction(scope_key="pair", scope=PredictionScope(subject=SUBJECTS))],
    score_prediction=spread,
    input_records=2,
    input_records_first=20,
    call_method=CallMethod(tick_arguments=("data", "performance")),
)


class Pupil:
    """Notes what it receives, and gives no answer in some rounds."""

    def __init__(self) -> None:
        self.lengths: list[tuple[int, ...]] = []
        self.told: list[dict[str, Any]] = []

    def tick(self, data: dict[str, Any], performance: dict[str, Any]) -> None:
        self.lengths.append(tuple(len(data[subject]["candles"]) for subject in SUBJECTS))
        self.told.append(performance)

    def predict(self, subject: str, _horizon_seconds: int, _step_seconds: int) -> Any:
        assert subject == "BTCUSDT+ETHUSDT"
        return None if len(self.lengths) % 40 == 0 else {"value": 1.0}


def engine(pupil: Pupil, **options: Any) -> Engine:
    new_engine = Engine(
        lambda _: CONTRACT, Functions({"pupil": pupil, "flat": lambda *_: {"value": -1.0}}), **options
    )
    if "kept" not in options:
        new_engine.configure(make_terms(CONTRACT, HASH, SETTINGS, 0))
    return new_engine


def fed(engine: Engine, start: int = 0, until: int = ROUNDS) -> Engine:
    for pair in list(zip(*MARKETS, strict=True))[start:until]:
        engine.feed(pair[0].at, list(pair))
    return engine


@pytest.fixture(scope="module")
def whole() -> tuple[Engine, Pupil]:
    pupil = Pupil()
    return fed(engine(pupil)), pupil


def test_the_tick_has_both_subjects_and_is_longer_at_first_and_after_a_round_without_an_answer(whole):
    _, pupil = whole
    assert len(pupil.lengths) == ROUNDS
    assert pupil.lengths[0] == (1, 1)
    long = [number for number, length in enumerate(pupil.lengths) if length == (20, 20)]
    assert long == [40, 80, 120]
    assert set(pupil.lengths[5:]) == {(2, 2), (20, 20)}


def test_each_model_receives_its_last_period(whole):
    run, pupil = whole
    assert pupil.told[0] == {}
    taken = {
        event.data.period_end: event.data.summary_units["value"] / 10**9
        for event in run.log.events("snapshots")
        if isinstance(event, ev.SnapshotTaken) and event.data.model_id == "pupil"
    }
    told = {
        performance["period_end"]: performance["summary"]["value"]
        for performance in pupil.told
        if performance
    }
    assert len(told) > 10
    assert told.items() <= taken.items()


@pytest.mark.parametrize("at", [7, 41, 95])
def test_an_engine_continues_from_a_saved_state_to_the_very_same_log(whole, at):
    pupil = Pupil()
    first = fed(engine(pupil), until=at)
    second = fed(engine(pupil, state_bytes=first.keep()), start=at)
    for topic in TOPICS:
        assert second.log[topic] == whole[0].log[topic][second.log.bases.get(topic, 0) :], topic


def looked_at(log: Any) -> ChainBrokenError | None:
    checkpoint = last_checkpoint(log)
    contracts = lambda _: CONTRACT  # noqa: E731
    try:
        list(check_chain(chain_of(log, checkpoint), checkpoint, contracts))
        texts = steps_of(log, chain_of(log, checkpoint), checkpoint, contracts, "engine")
    except ChainBrokenError as error:
        return error
    assert "first ticks computed again; 60 rounds' performances told again" in texts[STEPS[2]]
    return None


def test_the_audit_computes_all_of_it_again(whole):
    assert looked_at(whole[0].log) is None


def forged(log: Any, change: Any) -> Copy:
    """The log with each RoundOpened changed by `change`."""
    out = Copy({topic: log[topic] for topic in log.topics})
    out.topics["predictions"] = [encode_append(Append(e=1, epoch=1, seq=0, claim="forger"))]
    for number, decision in enumerate(log.decisions("predictions"), start=1):
        events = [
            msgspec.structs.replace(event, data=change(event.data))
            if isinstance(event, ev.RoundOpened)
            else event
            for event in decision.events
        ]
        for record in encode_decision(
            events, epoch=1, seq=number, upto=dict(decision.upto), need=dict(decision.need)
        ):
            out.append("predictions", record)
    return out


def other(what: Any, **fields: Any) -> Any:
    return None if what is None else msgspec.structs.replace(what, **fields)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda d: other(d, history=other(d.history, sha256="0" * 64)),
            "its first tick is not what feeds gives",
        ),
        (lambda d: other(d, performance=other(d.performance, sha256="0" * 64)), "is not what snapshots give"),
        (
            lambda d: other(d, performance=other(d.performance, snapshots_seq=99)),
            "snapshots closed no period",
        ),
        (
            lambda d: other(
                d, performance=other(d.performance, snapshots_seq=d.performance.snapshots_seq + 1)
            ),
            "tells of a period that ends at",
        ),
    ],
    ids=["another first tick", "another performance", "of no period", "of a later period"],
)
def test_a_false_record_of_it_is_found(whole, change, says):
    error = looked_at(forged(whole[0].log, change))
    assert error is not None
    assert (error.step, says in error.reason) == ("predictions", True), error.reason
