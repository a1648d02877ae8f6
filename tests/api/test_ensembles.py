"""Ensembles on the board, the model page's routes, in lists and in the past: listed beside the models, without rank."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder

from coordinator.api.times import naive
from coordinator.streams import events as ev
from coordinator.streams.log import ids

EQUAL, BEST, BROKEN = (f"__ensemble_{name}__" for name in ("equal", "best", "broken"))
WEIGHTS = {"m1": 250_000_000, "m2": 750_000_000, "m3": 0}


@pytest.fixture
def log() -> LogBuilder:
    """Two hours of rounds of three models, with ensembles that are better than all, between two, and failing."""
    log = LogBuilder()
    log.terms(ensembles=[ev.EnsembleTerms(name=name, hours=0) for name in ("equal", "best", "broken")])
    for i in range(1, 4):
        log.model(f"m{i}")
    for minute in (0, 30, 60, 90):
        log.round(minute * MINUTE_MS, {"m1": 0.5, "m2": 0.25, "m3": 0.125})
        scores = {"best": 0.75, "broken": "ensemble broken: ZeroDivisionError: no", "equal": 0.25}
        log.ensembles(minute * MINUTE_MS, scores, WEIGHTS, states={"equal": {"position": minute}})
        log.inputs_until((minute + 2) * MINUTE_MS)
    log.inputs_until(2 * HOUR_MS)
    log.scored_until(HOUR_MS)
    log.scored_until(2 * HOUR_MS)
    for hour in (0, 1):
        span = START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS
        for model_id, mean in (("m1", 0.5), ("m2", 0.25), ("m3", 0.125), (BEST, 0.75), (EQUAL, 0.25)):
            log.snapshot(model_id, *span, mean=mean)
    return log


async def test_the_board_has_models_alone_by_default(api):
    rows = await api.get("/reports/leaderboard")
    assert [(row["rank"], row["model_id"], row["ensemble"]) for row in rows] == [
        (1, "m1", False),
        (2, "m2", False),
        (3, "m3", False),
    ]


async def test_ensembles_are_listed_by_their_number_without_rank(api):
    rows = await api.get("/reports/leaderboard?include_ensembles=true")
    assert [(row["rank"], row["model_id"]) for row in rows] == [
        (None, BEST),
        (1, "m1"),
        (2, "m2"),
        (None, EQUAL),
        (3, "m3"),
    ]
    best = rows[0]
    assert (best["ensemble"], best["model_name"], best["status"]) == (True, "best", False)
    assert (best["ranking_score"], best["scored_count"]) == (0.75, 4)


async def test_on_the_board_of_a_scope_they_are_listed_by_their_number(api):
    rows = await api.get("/reports/leaderboard?include_ensembles=true&scope=BTCUSDT/60s")
    assert [row["model_id"] for row in rows] == [BEST, "m1", "m2", EQUAL, "m3"]
    rows = await api.get("/reports/leaderboard?scope=BTCUSDT/60s")
    assert [row["model_id"] for row in rows] == ["m1", "m2", "m3"]


async def test_pools_have_every_ranked_model_wherever_ensembles_are_listed(api):
    (pool,) = (await api.get("/reports/pools"))["pools"]
    assert [(row["rank"], row["model_id"]) for row in pool["rankings"]] == [(1, "m1"), (2, "m2"), (3, "m3")]


async def test_live_rows_mark_ensembles(api):
    rows = api.read.leaderboard.board().rows
    assert [row.model.model_id for row in rows if row.model.status == "ENSEMBLE"] == [BEST, EQUAL]


@pytest.mark.parametrize(
    "path", ["models/global", "models/params", "models/metrics", "models/summary", "snapshots"]
)
async def test_lists_have_ensembles_if_they_are_requested_or_named(api, path):
    async def listed(query: str) -> set[str]:
        return {row["model_id"] for row in await api.get(f"/reports/{path}{query}")}

    assert await listed("") == {"m1", "m2", "m3"}
    assert await listed("?include_ensembles=true") == {"m1", "m2", "m3", BEST, EQUAL}
    assert await listed(f"?projectIds={BEST}") == {BEST}


async def test_the_last_answer_of_an_ensemble_and_its_members_are_shown(api):
    rows = await api.get("/reports/ensembles")
    assert [row["ensemble_id"] for row in rows] == [BEST, BROKEN, EQUAL]
    best, broken, _ = rows
    at = START_MS + 90 * MINUTE_MS
    assert best == {
        "ensemble_id": BEST,
        "name": "best",
        "subject": "BTCUSDT",
        "scope_key": "60s",
        "performed_at": naive(at),
        "scored_at": naive(at + MINUTE_MS),
        "input_id": ids.input_id("BTCUSDT", at),
        "output": {"value": 0.25},
        "output_bytes": 14,
        "score_value": 0.75,
        "scores": {"value": 0.75},
        "failed_reason": None,
        "members": [
            {"model_id": "m2", "model_name": "name of m2", "weight": 0.75},
            {"model_id": "m1", "model_name": "name of m1", "weight": 0.25},
        ],
    }
    assert broken["failed_reason"] == "ensemble broken: ZeroDivisionError: no"
    assert (broken["output"], broken["output_bytes"], broken["members"]) == (None, 0, [])


async def test_as_of_an_hour_it_is_as_it_was_then(api):
    rows = await api.get(f"/reports/ensembles?as_of={START_MS + 40 * MINUTE_MS}")
    assert {row["performed_at"] for row in rows} == {naive(START_MS + 30 * MINUTE_MS)}
    board = await api.get(f"/reports/leaderboard?include_ensembles=true&as_of={START_MS + 40 * MINUTE_MS}")
    assert BEST in {row["model_id"] for row in board}


async def test_an_ensemble_can_be_requested_like_a_model_and_an_unknown_one_cannot(api):
    row = await api.get(f"/reports/models/{EQUAL}")
    assert (row["state"], row["model_name"], row["first_seen_at"]) == ("ENSEMBLE", "equal", None)
    assert [row["state"] for row in await api.get(f"/reports/models/{EQUAL}/state")] == [{"position": 90}]
    await api.get("/reports/models/__ensemble_other__", code=404)
    assert EQUAL not in {row["model_id"] for row in await api.get("/reports/models")}


async def test_the_boards_history_ranks_models_alone(api):
    body = await api.get("/reports/leaderboard/history")
    assert {name: row["change_from"] for name, row in body["series"].items()} == {
        "m1": 1,
        "m2": 2,
        "m3": 3,
        BEST: None,
        EQUAL: None,
    }
    assert body["series"][BEST]["scores"][-1] == 0.75
