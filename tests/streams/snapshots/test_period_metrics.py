"""A contract with metrics: each is a key of the snapshot's summary, and what goes wrong in one is told and stops nothing."""

from __future__ import annotations

import pytest
from tests.given import given
from tests.streams.build import HOUR, MINUTE, T0, UNIT, configured, round_scores, scored_until, shelf

from coordinator.streams.contract import Aggregation, CrunchContract, Metrics, ScoreResult
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.events import CrunchConfigured, SnapshotTaken
from coordinator.streams.log.errors import ContractError
from coordinator.streams.snapshots.stage import SnapshotStage

OUTCOMES = [0.1, -0.2, 0.3, -0.4]


class Score(ScoreResult):
    signal: float = 0.0
    outcome: float = 0.0


def score_prediction(prediction, truth):
    return {"value": prediction.value * truth.return_, "signal": prediction.value, "outcome": truth.return_}


def contract(**metrics):
    return CrunchContract(
        score_type=Score,
        score_prediction=score_prediction,
        aggregate_snapshot=lambda scores: {"scores": len(scores)},
        aggregation=Aggregation(metrics=Metrics(**metrics)),
    )


def snapshots_of(the_contract, signals):
    """The snapshots of one hour in which each model gave these signals, None where it was absent."""
    scene = given(SnapshotStage(shelf(the_contract))).when("scores", configured()).then(CrunchConfigured)
    for minute, outcome in enumerate(OUTCOMES):
        said = {
            model_id: "ABSENT"
            if column[minute] is None
            else {
                "value": round(column[minute] * outcome * UNIT),
                "signal": round(column[minute] * UNIT),
                "outcome": round(outcome * UNIT),
            }
            for model_id, column in signals.items()
        }
        at = T0 + (minute + 1) * MINUTE
        scene.when("scores", *round_scores(at - MINUTE, said, resolvable_at=at)).then()
    scene.when("scores", scored_until(T0)).when("scores", scored_until(T0 + HOUR))
    return {one.data.model_id: one.data for one in scene.all(SnapshotTaken)}


def test_metrics_stand_in_the_summary_beside_the_contracts_own_aggregate():
    found = snapshots_of(
        contract(names=["ic", "hit_rate", "max_drawdown"]),
        {"good": [1, -2, 3, -4], "bad": [-1, 2, -3, 4], "away": [1, None, None, None]},
    )
    assert found["good"].summary_units == {
        "hit_rate": UNIT,
        "ic": UNIT,
        "max_drawdown": 0,
        "scores": 4 * UNIT,
    }
    assert found["bad"].summary_units["ic"] == -UNIT
    assert found["bad"].summary_units["max_drawdown"] == round(-(0.1 + 0.4 + 0.9 + 1.6) * UNIT)
    assert found["away"].summary_units == {"hit_rate": UNIT, "max_drawdown": 0, "scores": UNIT}
    assert [one.summary_error for one in found.values()] == ["", "", ""]


def test_an_own_metric_is_given_the_series_and_one_that_raises_is_told_and_stops_nothing():
    def last_signal(series, i):
        return series.signals[-1, i]

    def broken(series, i):
        raise ZeroDivisionError("no")

    found = snapshots_of(
        contract(names=["ic"], own={"last": last_signal, "odd": broken}), {"m": [1, -2, 3, -4]}
    )
    assert found["m"].summary_units == {"ic": UNIT, "last": -4 * UNIT, "scores": 4 * UNIT}
    assert found["m"].summary_error == "metric odd: ZeroDivisionError: no"


def test_a_model_that_joins_changes_no_metric_of_its_own_series():
    metrics = contract(names=["ic", "ic_sharpe", "hit_rate", "mean_return", "max_drawdown", "turnover"])
    alone = snapshots_of(metrics, {"m": [1, -2, 3, 4]})["m"]
    assert snapshots_of(metrics, {"a": [4, 3, 2, 1], "m": [1, -2, 3, 4], "z": [0, 0, 0, 0]})["m"] == alone


def test_a_metric_ranks_the_payment():
    ranked = CrunchContract(
        score_type=Score,
        score_prediction=score_prediction,
        aggregation=Aggregation(metrics=Metrics(names=["ic"]), checkpoint_key="ic"),
    )
    check_contract(ranked)


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"names": ["ic"], "signal_field": "sinal"}, "no number 'sinal'"),
        ({"own": {"scores": lambda series, i: 1.0}}, r"gives \['scores'\] too"),
        ({"own": {"odd": lambda series: 1.0}}, "metric odd"),
    ],
)
def test_contract_check_finds_metrics_that_cannot_be(metrics, says):
    with pytest.raises(ContractError, match=says):
        check_contract(contract(**metrics))


def test_a_metric_with_the_name_of_a_window_is_refused():
    with pytest.raises(ValueError, match="one name means one thing"):
        Aggregation(metrics=Metrics(own={"score_recent": lambda series, i: 1.0}))
