"""Tournaments and questions: cases that the files do not contain, each with results computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.checkout import root_on_path

with root_on_path():
    from tests.oracles.questions import (
        metaculus_tournament,
        numinous_board,
        numinous_event,
        numinous_reforecast,
    )
    from tests.oracles.tables import datacrunch_round, numerai_round, numerai_season

WEEK = {"power": 20, "pool_usd": 1000.0, "limit": 10.0}
NUMERAI = {
    "corr_multiplier": 0.5,
    "mmc_multiplier": 2.0,
    "clip": 0.05,
    "stake_threshold": 72_000.0,
    "max_missing": 0.2,
}
PRIZES = {"prize_pool_usd": 100.0, "minimum_prize_usd": 5.0, "p_min": 0.001, "p_max": 0.999}
TARGET = {"1": -1.0, "2": 0.0, "3": 1.0, "4": 2.0}


def rows(*values: Any, moon: int = 7) -> list[list[Any]]:
    return [[moon, int(name), value] for name, value in zip(TARGET, values, strict=False)]


def week(**answers: Any) -> dict[str, Any]:
    return datacrunch_round({"parameters": WEEK, "round": {"moon": 7, "target": TARGET, "answers": answers}})


def test_a_single_model_gets_the_whole_pool_and_a_week_without_answers_is_retained():
    alone = week(a=rows(-1.0, 0.0, 1.0, 2.0))
    assert alone["scores"] == {"a": 1.0}
    assert (alone["payouts_micro"], alone["retained_micro"]) == ({"a": 1_000_000_000}, 0)
    nobody = week(a=None, b=rows(1.0, 2.0))
    assert nobody["refused"] == {"a": "absent", "b": "ids do not match"}
    assert (nobody["payouts_micro"], nobody["retained_micro"]) == ({}, 1_000_000_000)
    assert week()["ranking"] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (rows(1.0, 2.0, 3.0, "x"), "not a finite number"),
        (rows(1.0, 2.0, 3.0, True), "not a finite number"),
        (rows(1.0, 2.0, 3.0, -10.5), "beyond the limit"),
        ([[7, 1], [7, 2]], "not rows of moon, id and prediction"),
        ([], "ids do not match"),
        (rows(1.0, 2.0, 3.0, 4.0, moon=8), "wrong moon"),
        ([*rows(1.0, 2.0, 3.0, 4.0), [7, 4, 0.5]], "duplicate ids"),
    ],
)
def test_what_a_week_refuses(answer: list[Any], reason: str):
    assert week(a=answer)["refused"] == {"a": reason}


def round_of(answers: dict[str, Any], target: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ids": list("abcde"), "target": target, "answers": answers, "late": [], "stakes": {}} | more


FIVE = dict(zip("abcde", (0.0, 0.25, 0.5, 0.75, 1.0), strict=True))


def test_an_answer_in_the_order_of_the_target_scores_nearly_1_and_its_opposite_the_negative():
    opposite = {name: 1 - value for name, value in FIVE.items()}
    played = numerai_round({"parameters": NUMERAI, "round": round_of({"up": FIVE, "down": opposite}, FIVE)})
    up, down = played["scores"]["up"], played["scores"]["down"]
    g = [-1.2815515655446004, -0.5244005127080409, 0.0, 0.5244005127080409, 1.2815515655446004]
    x, y = (
        [math.copysign(abs(value) ** 1.5, value) for value in values]
        for values in (g, [-0.5, -0.25, 0.0, 0.25, 0.5])
    )
    by_hand = math.fsum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(
        math.fsum(a * a for a in x) * math.fsum(b * b for b in y)
    )
    assert up["corr"] == pytest.approx(by_hand, abs=1e-9)
    assert (down["corr"], up["mmc"]) == (-up["corr"], None)
    assert played["payouts_frac64"] == {"up": 1_000_000_000, "down": 0}


def test_with_more_than_a_fifth_of_the_targets_missing_nobody_is_scored_and_no_stake_moves():
    targets = {"a": 0.0, "b": 0.5, "c": 1.0}
    round_inputs = round_of({"m": FIVE}, targets, stakes={"m": 100.0})
    played = numerai_round({"parameters": NUMERAI, "round": round_inputs})
    assert (played["scores"], played["payouts_stake"]) == ({"m": None}, {"m": 0.0})
    enough = numerai_round({"parameters": NUMERAI, "round": round_inputs | {"target": targets | {"d": 0.75}}})
    assert enough["scores"]["m"] is not None


def test_a_stake_that_is_posted_again_does_not_undo_earlier_gains():
    round_inputs = round_of({"m": FIVE}, FIVE, stakes={"m": 100.0})
    first, second = numerai_season({"parameters": NUMERAI, "rounds": [round_inputs, round_inputs]})["rounds"]
    assert (first["at_risk"], second["at_risk"]) == ({"m": 100.0}, {"m": 105.0})


def test_a_tournament_and_a_season_without_participants_end_in_a_result():
    assert numerai_season({"parameters": NUMERAI, "rounds": []}) == {
        "rounds": [],
        "aggregates": {},
        "ranking": [],
    }
    assert metaculus_tournament({"parameters": PRIZES, "questions": []})["retained_micro"] == 100_000_000
    assert numinous_event({"days": 1, "outcome": 1, "models": {}}) == {"scores": {}}
    empty = numinous_board({"pools": {"global_brier": {"weight": 1.0, "last": 3, "least": 1}}, "models": {}})
    assert empty == {"aggregates": {}, "ranking": []}
    nothing: dict[str, Any] = {"today": 9, "activated": {}, "market": {}, "resolved": {}, "forecasts": []}
    assert numinous_reforecast(nothing)["burnt_frac64"] == 1_000_000_000


def question(outcome: int | None, **forecasts: Any) -> dict[str, Any]:
    times = {"open": 0, "scheduled": 100, "closed": 100, "options": 2, "weight": 1.0}
    return {**times, "outcome": outcome, "forecasts": forecasts}


def standing(probability: float, start: int = 0, end: int | None = None) -> list[dict[str, Any]]:
    return [{"p": [probability, 1 - probability], "start": start, "end": end}]


def test_a_forecast_alone_has_peer_score_0_and_an_annulled_question_scores_nobody():
    played = metaculus_tournament(
        {"parameters": PRIZES, "questions": [question(0, a=standing(0.5)), question(None, a=standing(0.9))]}
    )
    alone, annulled = (question["scores"]["a"] for question in played["questions"])
    assert alone == {"peer": 0.0, "baseline": 0.0, "coverage": 1.0}
    assert annulled == {"peer": None, "baseline": None, "coverage": 0.0}
    assert (played["payouts_micro"], played["retained_micro"]) == ({"a": 0}, 100_000_000)


def test_peers_are_the_forecasts_standing_at_the_time_and_weights_count_in_the_sums():
    question_inputs = question(0, a=standing(0.8), b=standing(0.4, 50)) | {"weight": 0.5}
    played = metaculus_tournament({"parameters": PRIZES, "questions": [question_inputs]})
    half = 100 * 2 * math.log(0.8 / math.sqrt(0.8 * 0.4)) / 2
    assert played["questions"][0]["scores"]["a"]["peer"] == pytest.approx(half)
    assert played["aggregates"]["a"]["peer_sum"] == pytest.approx(half / 2)
    assert (played["aggregates"]["a"]["coverage"], played["aggregates"]["b"]["coverage"]) == (0.5, 0.25)
    assert played["payouts_micro"] == {"a": 100_000_000, "b": 0}


def test_the_only_day_of_an_event_has_all_the_weight_and_days_outside_it_none():
    models = {
        "today": {"registered": 0, "failed": False, "predictions": {"0": 0.7}},
        "beyond": {"registered": 0, "failed": False, "predictions": {"1": 0.7}},
    }
    scores = numinous_event({"days": 1, "outcome": 1, "models": models})["scores"]
    assert scores == {"today": pytest.approx(0.09), "beyond": None}
