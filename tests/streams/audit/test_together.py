"""A log of two subjects asked together: an honest one passes, and an altered truth, input, score or record is found and
named.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest
from tests.memory_log import MemoryLog, undisturbed
from tests.streams import test_crash_chain as crash_chain
from tests.streams.audit.test_whole_rounds import both_looks, last_checkpoint, rewritten
from tests.streams.build import SUBJECT, scope, shelf

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract, PredictionScope, ScheduledPrediction
from coordinator.streams.events import FeedRecordReceived, InputReceived, InputResolved, RoundScored
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

PAIR = f"{SUBJECT}+ETHUSDT"


def spread(prediction: Any, truth: Any) -> dict[str, float]:
    """The answer times the difference between the first and the second subject's rise."""
    return {"value": prediction.value * 1000 * (truth[SUBJECT].return_ - truth["ETHUSDT"].return_)}


def spreads(answers: Any, truth: Any, context: Any) -> dict[str, Any]:
    assert context.subject == PAIR
    return {"value": answers.column("value") * 1000 * (truth[SUBJECT].return_ - truth["ETHUSDT"].return_)}


@pytest.fixture(scope="module", params=["score_prediction", "score_round"])
def played(request) -> tuple[MemoryLog, Any]:
    pair = PredictionScope(subject=(SUBJECT, "ETHUSDT"))
    function = spread if request.param == "score_prediction" else spreads
    fields: dict[str, Any] = crash_chain.ASKED | {
        "scheduled_predictions": [ScheduledPrediction(scope_key="pair", scope=pair)],
        request.param: function,
    }
    contracts = shelf(
        CrunchContract(**fields, gap_wait_seconds=600),
        new=CrunchContract(**fields, grace_seconds=0, gap_policy="accept"),
    )
    with pytest.MonkeyPatch.context() as patch:
        scopes = [scope("pair", PAIR, together=[SUBJECT, "ETHUSDT"])]
        patch.setattr(crash_chain, "TERMS", crash_chain.TERMS | {"scopes": scopes})
        log = undisturbed(crash_chain.feeds(1, 100), lambda: InputStage(contracts))
    crash_chain.predictions(log, 1)
    for stage in (ScoreStage, SnapshotStage, partial(CheckpointStage, "btc-up")):
        log = undisturbed(log, partial(stage, contracts))
    return log, contracts


def test_an_honest_log_passes(played):
    log, contracts = played
    scored = [event.data for event in log.events("scores") if isinstance(event, RoundScored)]
    assert {(data.subject, data.scope_key) for data in scored} == {(PAIR, "pair")}
    values = {units for data in scored for units in data.units.get("value", []) if units}
    assert len(values) > 50
    assert both_looks(log, last_checkpoint(log), contracts) == [None, None]


def other_truth(data):
    if data.truth is None:
        return None
    truth = data.truth | {"ETHUSDT": data.truth["ETHUSDT"] | {"return": 0.5}}
    return msgspec.structs.replace(data, truth=truth)


def other_price(data):
    if data.subject != "ETHUSDT":
        return None
    return msgspec.structs.replace(data, values=data.values | {"close": "1.50"})


def other_score(data):
    column = data.units["value"] if data.units else []
    if not column or column[0] is None:
        return None
    return msgspec.structs.replace(data, units={"value": [column[0] + 2, *column[1:]]})


def without_one(data):
    payload = msgspec.json.decode(data.payload)
    del payload["ETHUSDT"]
    return msgspec.structs.replace(data, payload=msgspec.Raw(msgspec.json.encode(payload)))


@pytest.mark.parametrize(
    ("topic", "kind", "change", "step"),
    [
        ("inputs", InputResolved, other_truth, "feed"),
        ("feeds", FeedRecordReceived, other_price, "feed"),
        ("scores", RoundScored, other_score, "scores"),
        ("inputs", InputReceived, without_one, "input"),
    ],
    ids=["a truth of the second", "a record of the second", "a score", "an input"],
)
def test_an_alteration_is_found_and_named(played, topic, kind, change, step):
    log, contracts = played
    checkpoint = last_checkpoint(log)
    forged = rewritten(log, kind, change, checkpoint.period_start, checkpoint.period_end, topic)
    errors = both_looks(forged, checkpoint, contracts)
    assert [error.step if error else None for error in errors] == [step, step], errors
