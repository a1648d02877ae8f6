"""A log with ensembles: an honest one passes, and an altered weight, answer or score of an ensemble is found and named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.memory_log import MemoryLog, undisturbed
from tests.streams import test_crash_chain as crash_chain
from tests.streams.audit.test_whole_rounds import both_looks, last_checkpoint, rewritten
from tests.streams.build import PUBKEY, shelf

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import (
    Aggregation,
    CrunchContract,
    Ensemble,
    Metrics,
    RoundScores,
    ScoreResult,
    TopN,
)
from coordinator.streams.events import EnsemblesScored, EnsembleTerms, SnapshotTaken
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

TERMS = [
    EnsembleTerms(name="equal", hours=0),
    EnsembleTerms(name="precise", hours=2, error_field="error", weighs_metrics=True),
    EnsembleTerms(name="odd", hours=1),
]


class Measured(ScoreResult):
    signal: float = 0.0
    outcome: float = 0.0
    error: float = 0.0


def measured(prediction, truth):
    signal, outcome = prediction.value, 100 * truth.return_
    return {"value": signal * outcome, "signal": signal, "outcome": outcome, "error": signal - outcome}


def together(answers, truth, context):
    wealth = {
        answer.model_id: context.states.get(answer.model_id, 1.0) + answer.output.value * truth.return_
        for answer in answers
        if answer.output is not None
    }
    scores = [
        None if answer.output is None else measured(answer.output, truth) | {"value": wealth[answer.model_id]}
        for answer in answers
    ]
    return RoundScores(scores, states=wealth)


def odd(members):
    if len(members) % 2:
        raise ValueError("an odd number")
    return [1.0 + (member.mean_score or 0.0) ** 2 for member in members]


def contracts_of(fields: dict[str, Any]) -> Callable[[str], CrunchContract]:
    same: dict[str, Any] = {
        "crunch_pubkey": PUBKEY,
        "score_type": Measured,
        "ensembles": [
            Ensemble(name="equal"),
            Ensemble(
                name="precise", weights="inverse_variance", error_field="error", filter=TopN(n=2), hours=2
            ),
            Ensemble(name="odd", weights=odd, hours=1),
        ],
        "aggregation": Aggregation(
            metrics=Metrics(names=["ic", "contribution", "ensemble_correlation"], ensemble="precise")
        ),
        **fields,
    }
    return shelf(
        CrunchContract(**same, gap_wait_seconds=600),
        new=CrunchContract(**same, grace_seconds=0, gap_policy="accept"),
    )


@pytest.fixture(
    scope="module",
    params=[{"score_prediction": measured}, {"score_round": together}],
    ids=["alone", "whole"],
)
def played(request) -> tuple[MemoryLog, Callable[[str], CrunchContract]]:
    contracts = contracts_of(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash_chain, "TERMS", crash_chain.TERMS | {"ensembles": TERMS})
        log = undisturbed(crash_chain.feeds(1, 100), lambda: InputStage(contracts))
    crash_chain.predictions(log, 1)
    for stage in (ScoreStage, SnapshotStage, partial(CheckpointStage, "btc-up")):
        log = undisturbed(log, partial(stage, contracts))
    return log, contracts


def test_an_honest_log_passes_and_pays_no_ensemble(played):
    log, contracts = played
    ensemble_scores = [event.data for event in log.events("scores") if isinstance(event, EnsemblesScored)]
    ends = {(entry.model_id, entry.status) for data in ensemble_scores for entry in data.entries()}
    assert len(ends) == 6 - 1  # each is scored, and all but the equal one fail in some round
    snapshots = [event.data for event in log.events("snapshots") if isinstance(event, SnapshotTaken)]
    assert any("contribution" in snapshot.summary_units for snapshot in snapshots)
    checkpoint = last_checkpoint(log)
    assert both_looks(log, checkpoint, contracts) == [None, None]
    assert {model_id for model_id in checkpoint.unranked if model_id.startswith("__ensemble_")} == {
        "__ensemble_equal__",
        "__ensemble_odd__",
        "__ensemble_precise__",
    }
    assert not any(row.model_id.startswith("__ensemble_") for row in checkpoint.ranking)


def other_score(data):
    column = data.units.get("value", [])
    if not column or column[0] is None:
        return None
    return msgspec.structs.replace(data, units=data.units | {"value": [column[0] + 2, *column[1:]]})


def other_answer(data):
    return msgspec.structs.replace(data, outputs=[msgspec.Raw(b'{"value":0.25}'), *data.outputs[1:]])


def other_weights(data):
    column = data.weights[1]
    if len([weight for weight in column if weight]) < 2:
        return None
    swapped = [None if weight is None else 10**9 - weight + 1 for weight in column]
    return msgspec.structs.replace(data, weights=[data.weights[0], swapped, *data.weights[2:]])


def one_fewer(data):
    return msgspec.structs.replace(data, models=["__ensemble_equal__", "__ensemble_odd__", "x"])


ALTERED = {"a score": other_score, "an answer": other_answer, "weights": other_weights, "an id": one_fewer}


@pytest.mark.parametrize("what", ALTERED)
def test_an_alteration_is_found_and_named(played, what):
    log, contracts = played
    checkpoint = last_checkpoint(log)
    period = checkpoint.period_start, checkpoint.period_end
    alone, both = both_looks(rewritten(log, EnsemblesScored, ALTERED[what], *period), checkpoint, contracts)
    assert both is not None
    assert both.step == "scores"
    if contracts("new").score_round is None or what != "a score":
        assert alone is not None
        assert alone.step == "scores"


def other_mean(data):
    if data.model_id != "__ensemble_equal__" or not data.scored_count:
        return None
    return msgspec.structs.replace(data, scored_count=data.scored_count + 1)


def test_an_altered_snapshot_of_an_ensemble_is_found_and_named(played):
    log, contracts = played
    checkpoint = last_checkpoint(log)
    forged = rewritten(
        log, SnapshotTaken, other_mean, checkpoint.period_start, checkpoint.period_end, topic="snapshots"
    )
    for error in both_looks(forged, checkpoint, contracts):
        assert error is not None
        assert error.step == "snapshots"
        assert "__ensemble_equal__" in str(error)
