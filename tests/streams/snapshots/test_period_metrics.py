"""A contract with metrics: each is a key of the snapshot's summary. An error in a metric is reported and stops nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.given import given
from tests.streams.build import HOUR, MINUTE, T0, UNIT, configured, round_scores, scored_until, shelf

from coordinator.streams.contract import Aggregation, CrunchContract, Ensemble, Metrics, ScoreResult
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.metrics import METRIC_NAMES
from coordinator.streams.events import (
    NO_OUTPUT,
    CrunchConfigured,
    EnsemblesScored,
    EnsemblesScoredData,
    EnsembleTerms,
    FieldSum,
    PeriodClosed,
    RoundScored,
    ScoreEntry,
    SnapshotTaken,
    in_columns,
)
from coordinator.streams.log.errors import ContractError
from coordinator.streams.scores.units import mean_units
from coordinator.streams.snapshots.metrics import spearman
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
    """The snapshots of one hour with these signals of each model; None where it was absent."""
    scene = given(SnapshotStage(shelf(the_contract))).when("scores", configured()).then(CrunchConfigured)
    for minute, outcome in enumerate(OUTCOMES):
        scores_by_model = {
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
        scene.when("scores", *round_scores(at - MINUTE, scores_by_model, resolvable_at=at)).then()
    scene.when("scores", scored_until(T0)).when("scores", scored_until(T0 + HOUR))
    return {event.data.model_id: event.data for event in scene.all(SnapshotTaken)}


def test_metrics_are_in_the_summary_beside_the_contracts_own_aggregate():
    taken = snapshots_of(
        contract(names=["ic", "hit_rate", "max_drawdown"]),
        {"good": [1, -2, 3, -4], "bad": [-1, 2, -3, 4], "away": [1, None, None, None]},
    )
    assert taken["good"].summary_units == {
        "hit_rate": UNIT,
        "ic": UNIT,
        "max_drawdown": 0,
        "scores": 4 * UNIT,
    }
    assert taken["bad"].summary_units["ic"] == -UNIT
    assert taken["bad"].summary_units["max_drawdown"] == round(-(0.1 + 0.4 + 0.9 + 1.6) * UNIT)
    assert taken["away"].summary_units == {"hit_rate": UNIT, "max_drawdown": 0, "scores": UNIT}
    assert [data.summary_error for data in taken.values()] == ["", "", ""]


def test_an_own_metric_receives_the_series_and_an_exception_in_it_is_reported_and_stops_nothing():
    def last_signal(series, i):
        return series.signals[-1, i]

    def broken(series, i):
        raise ZeroDivisionError("no")

    taken = snapshots_of(
        contract(names=["ic"], own={"last": last_signal, "odd": broken}), {"m": [1, -2, 3, -4]}
    )
    assert taken["m"].summary_units == {"ic": UNIT, "last": -4 * UNIT, "scores": 4 * UNIT}
    assert taken["m"].summary_error == "metric odd: ZeroDivisionError: no"


def test_a_model_that_joins_changes_no_metric_of_another_models_own_series():
    metrics = contract(names=["ic", "ic_sharpe", "hit_rate", "mean_return", "max_drawdown", "turnover"])
    alone = snapshots_of(metrics, {"m": [1, -2, 3, 4]})["m"]
    assert snapshots_of(metrics, {"a": [4, 3, 2, 1], "m": [1, -2, 3, 4], "z": [0, 0, 0, 0]})["m"] == alone


def test_a_metric_can_rank_the_payment():
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
def test_contract_check_finds_impossible_metrics(metrics, says):
    with pytest.raises(ContractError, match=says):
        check_contract(contract(**metrics))


def test_a_metric_with_the_name_of_a_window_is_refused():
    with pytest.raises(ValueError, match="one name means one thing"):
        Aggregation(metrics=Metrics(own={"score_recent": lambda series, i: 1.0}))


# --- ensembles ---------------------------------------------------------------------------------------------------

WEIGHTS = {"a": 3, "b": 1}
SAID = {"a": [1.0, -2.0, 3.0, -1.0], "b": [2.0, 1.0, -1.0, -3.0], "c": [1.0, 2.0, 3.0, 4.0]}


def with_ensemble(the_contract, signals):
    """As `snapshots_of`, with an ensemble of a and b with weights 3 to 1, and an ensemble that fails in every round."""
    ensembles = [
        EnsembleTerms(name="mine", hours=0, weighs_metrics=True),
        EnsembleTerms(name="broken", hours=0),
    ]
    scene = given(SnapshotStage(shelf(the_contract)))
    scene.when("scores", configured(ensembles=ensembles)).then(CrunchConfigured)
    for minute, outcome in enumerate(OUTCOMES):
        at = T0 + (minute + 1) * MINUTE
        scores_by_model = {
            model_id: {
                "value": round(column[minute] * outcome * UNIT),
                "signal": round(column[minute] * UNIT),
                "outcome": round(outcome * UNIT),
            }
            for model_id, column in signals.items()
        }
        events = list(round_scores(at - MINUTE, scores_by_model, resolvable_at=at))
        scored = next(event for event in events if isinstance(event, RoundScored)).data
        signal = sum(weight * signals[name][minute] for name, weight in WEIGHTS.items()) / 4
        entries = [
            ScoreEntry(
                "__ensemble_mine__",
                "SCORED",
                units={
                    "value": round(signal * outcome * UNIT),
                    "signal": round(signal * UNIT),
                    "outcome": round(outcome * UNIT),
                },
            ),
            ScoreEntry("__ensemble_broken__", "FAILED", "node", reason="ensemble broken: KeyError: 'x'"),
        ]
        about = {
            name: getattr(scored, name)
            for name in scored.__struct_fields__
            if name not in ("models", "crunchers", "units", "unscored", "reasons")
        }
        data = EnsemblesScoredData(
            **about,
            **in_columns(entries),
            answered=list(signals),
            weights=[[WEIGHTS.get(name) for name in signals], []],
            outputs=[NO_OUTPUT, NO_OUTPUT],
        )
        events.append(EnsemblesScored(id=f"{at}:ensembles", at=at, data=data))
        scene.when("scores", *events).then()
    scene.when("scores", scored_until(T0)).when("scores", scored_until(T0 + HOUR))
    closed = next(event.data for event in scene.all(PeriodClosed) if event.data.snapshot_count)
    return {event.data.model_id: event.data for event in scene.all(SnapshotTaken)}, closed


def test_an_ensemble_has_a_snapshot_like_a_model():
    metrics = contract(names=["ic", "turnover", "model_correlation"])
    taken, closed = with_ensemble(metrics, SAID)
    mine, broken = taken["__ensemble_mine__"], taken["__ensemble_broken__"]
    signals = [(3 * signal + other) / 4 for signal, other in zip(SAID["a"], SAID["b"], strict=True)]
    values = [round(signal * outcome * UNIT) for signal, outcome in zip(signals, OUTCOMES, strict=True)]
    assert (mine.scored_count, mine.failed_count, mine.sums["value"]) == (4, 0, FieldSum(sum(values), 4))
    assert mine.windows_units["score_recent"] == mean_units(sum(values), 4)
    alone = snapshots_of(metrics, {"m": signals})["m"]
    assert mine.summary_units == alone.summary_units
    assert (broken.scored_count, broken.failed_count, broken.failed_node_count) == (0, 4, 4)
    assert (mine.rounds_count, broken.rounds_count, closed.rounds_count) == (4, 4, 4)


def test_ensembles_change_no_models_snapshot_nor_metric():
    metrics = contract(names=list(METRIC_NAMES))
    taken, _ = with_ensemble(metrics, SAID)
    assert {name: taken[name] for name in SAID} == snapshots_of(metrics, SAID)


def rho(values, other):
    correlation = spearman(np.array(values, dtype=float), np.array(other, dtype=float))
    assert correlation is not None
    return correlation


def test_contribution_and_correlation_use_the_declared_ensembles_weights():
    names = ["contribution", "ensemble_correlation"]
    declared = CrunchContract(
        score_type=Score,
        score_prediction=score_prediction,
        ensembles=[
            Ensemble(name="mine", weights=lambda members: [1.0] * len(members)),
            Ensemble(name="broken"),
        ],
        aggregation=Aggregation(metrics=Metrics(names=names, ensemble="mine")),
    )
    taken, _ = with_ensemble(declared, SAID)
    ensemble = [(3 * signal + other) / 4 for signal, other in zip(SAID["a"], SAID["b"], strict=True)]
    whole = rho(ensemble, OUTCOMES)
    # c is no member: without it the ensemble is the same.
    due = {"a": whole - rho(SAID["b"], OUTCOMES), "b": whole - rho(SAID["a"], OUTCOMES), "c": 0.0}
    assert {name: taken[name].summary_units["contribution"] / UNIT for name in SAID} == pytest.approx(
        due, abs=1e-9
    )
    correlation = {
        "a": rho(SAID["a"], SAID["b"]),
        "b": rho(SAID["b"], SAID["a"]),
        "c": rho(SAID["c"], ensemble),
    }
    assert {name: taken[name].summary_units["ensemble_correlation"] / UNIT for name in SAID} == pytest.approx(
        correlation, abs=1e-9
    )


def test_metrics_can_compare_only_with_a_declared_ensemble():
    with pytest.raises(ValueError, match="'other' is none of the ensembles"):
        CrunchContract(
            ensembles=[Ensemble(name="mine")], aggregation=Aggregation(metrics=Metrics(ensemble="other"))
        )
