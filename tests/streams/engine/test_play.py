"""A challenge in five lines, for authors: scores by hand, the board, the emission."""

from __future__ import annotations

import random

import pytest
from tests.streams.build import DEFAULT, UNIT

from coordinator.streams.contract import (
    Aggregation,
    Coverage,
    CrunchContract,
    Ensemble,
    Metrics,
    PredictionScope,
    RankingDirection,
    ScheduledPrediction,
)
from coordinator.streams.engine import candles, play
from coordinator.streams.log.ids import ensemble_id


def test_five_lines_are_a_complete_challenge():
    played = play(DEFAULT, candles([100, 101, 99]), {"up": lambda data, call: {"value": 1.0}})
    assert [score.units["value"] for score in played.scores["up"]] == [UNIT, -3 * UNIT]
    assert [(place.rank, place.model_id, place.units) for place in played.board] == [(1, "up", -UNIT)]
    assert played.emission is not None
    assert played.emission["cruncher_rewards"] == [{"cruncher_index": 0, "reward_pct": UNIT}]


def test_a_model_receives_what_was_known_and_what_is_asked():
    calls = []

    def model(data, call):
        calls.append(([candle["close"] for candle in data["candles"]], data["asof_ts"], call))
        data["candles"].clear()  # its own copy
        return {"value": 0}

    records = candles(["1.5", "2.5", "2.25"], subject="ETHUSDT")
    play(DEFAULT, records, {"a": model, "b": model})
    asked = {"subject": "ETHUSDT", "horizon_seconds": 60, "step_seconds": 15}
    expected = [([1.5, 2.5, 2.25][: n + 1], record.at, asked) for n, record in enumerate(records)]
    assert calls == [call for call in expected for _ in "ab"]


def test_two_subjects_and_two_scopes():
    contract = CrunchContract(
        scheduled_predictions=[
            ScheduledPrediction(scope_key="1m", scope=PredictionScope(horizon_seconds=60)),
            ScheduledPrediction(scope_key="2m", scope=PredictionScope(horizon_seconds=120)),
        ]
    )
    records = [*candles([1, 2, 3], subject="A"), *candles([3, 2, 1], subject="B")]
    played = play(contract, records, {"up": lambda data, call: {"value": 1}})
    scores = {(entry.subject, entry.scope_key, entry.units["value"] // UNIT) for entry in played.scores["up"]}
    assert scores == {("A", "1m", 1), ("A", "2m", 1), ("B", "1m", -3), ("B", "2m", -3)}
    assert len(played.scores["up"]) == 2 * (2 + 1)


def test_without_a_score_there_is_no_emission():
    played = play(DEFAULT, candles([100]), {"up": lambda data, call: {"value": 1.0}})
    assert (played.scores, played.board, played.ending, played.emission) == ({"up": []}, [], None, None)
    assert play(DEFAULT, [], {}).ending is None


def median_of(scores):
    return {"median": sorted(score.value for score in scores)[len(scores) // 2]}


@pytest.mark.parametrize("direction", list(RankingDirection))
@pytest.mark.parametrize("key", ["median", "max_drawdown", "score_recent"])
def test_the_board_by_any_key_is_the_ranking_of_a_checkpoint_of_one_snapshot_by_that_key(key, direction):
    metrics = Metrics(signal_field="value", outcome_field="value", names=["max_drawdown"])
    aggregation = Aggregation(
        metrics=metrics, ranking_key=key, checkpoint_key=key, ranking_direction=direction
    )
    contract = CrunchContract(aggregation=aggregation, aggregate_snapshot=median_of)
    chance = random.Random(7)
    prices = candles([100 + chance.randrange(-9, 10) / 4 for _ in range(50)])
    models = {
        f"m{i}": lambda data, call, i=i: {"value": (i * data["asof_ts"] // 60_000) % 7 - 3} for i in range(5)
    }
    models["fails"] = lambda data, call: "no number"
    played = play(contract, prices, models)
    ranking = played.ending.checkpoint.ranking
    assert len(ranking) == 5
    assert len({entry.key_units for entry in ranking}) > 1
    assert [(place.rank, place.model_id, place.units) for place in played.board] == [
        (entry.rank, entry.model_id, entry.key_units) for entry in ranking
    ]


def test_a_model_below_the_coverage_has_no_place_on_the_board():
    contract = CrunchContract(coverage=Coverage(share=0.5, rounds=4))
    prices = candles([100, 101, 102, 104, 103])

    def early(data, call):
        if data["asof_ts"] > prices[0].at:
            raise ValueError("no opinion")
        return {"value": 1}

    played = play(contract, prices, {"early": early, "always": lambda data, call: {"value": -1}})
    assert {snapshot.model_id: snapshot.coverage.scored for snapshot in played.ending.snapshots} == {
        "early": 1,
        "always": 4,
    }
    assert [(place.rank, place.model_id) for place in played.board] == [(1, "always")]


def test_an_ensemble_is_scored_and_has_no_place_on_the_board():
    contract = CrunchContract(ensembles=[Ensemble(name="all")])
    models = {
        name: lambda data, call, value=value: {"value": value} for name, value in (("up", 1), ("flat", 0))
    }
    played = play(contract, candles([100, 101, 102, 104]), models)
    assert ensemble_id("all") in {snapshot.model_id for snapshot in played.ending.snapshots}
    assert [(place.rank, place.model_id) for place in played.board] == [(1, "up"), (2, "flat")]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("up", "BAD_OUTPUT"),
        ({"value": float("inf")}, "BAD_OUTPUT"),
        ({1, 2}, "MODEL_FAILED"),
        (2**64, "MODEL_FAILED"),
    ],
)
def test_a_bad_answer_is_a_failure_by_its_models_fault(output, reason):
    contract = DEFAULT.model_copy(update={"aggregation": Aggregation()})
    played = play(contract, candles([1, 2, 3]), {"bad": lambda data, call: output})
    assert {score.status for score in played.scores["bad"]} == {"FAILED"}
    reasons = [
        entry.reason
        for event in played.engine.log.events("predictions")
        if hasattr(event.data, "outputs")
        for entry in event.data.entries(played.engine.models.stage.models.roster())
    ]
    assert reasons
    assert all(text.startswith(reason) for text in reasons)
    assert played.board == []
