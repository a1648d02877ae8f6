"""Boards over a window beside the whole one: on the live leaderboard, in its columns, and as its ranking."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS, LogBuilder

from coordinator.streams import events as ev

SCOPES = [
    ev.Scope(scope_key="60s", subject=subject, horizon_seconds=60, step_seconds=15, interval_seconds=60)
    for subject in ("BTCUSDT", "ETHUSDT")
]
BOARDS = [
    ev.BoardTerms(
        name="weighted", window="score_recent", every_scope=True,
        parts=[ev.BoardPart("BTCUSDT", "60s", "1"), ev.BoardPart("ETHUSDT", "60s", "3")],
    ),
    ev.BoardTerms(name="of the period", window="", every_scope=False, parts=[ev.BoardPart("BTCUSDT", "60s", "1")]),
]  # fmt: skip


@pytest.fixture
def log() -> LogBuilder:
    log = LogBuilder()
    log.terms(scopes=SCOPES, subjects=["BTCUSDT", "ETHUSDT"], boards=BOARDS, ranking_key="weighted")
    for model_id in ("a", "b", "c"):
        log.model(model_id)
    for minute in (1, 2):
        log.round(minute * 60_000, {"a": 0.9, "b": 0.5, "c": 1.0})
    log.round(60_000, {"a": 0.1, "b": 0.5}, subject="ETHUSDT")
    log.inputs_until(HOUR_MS)
    log.scored_until(HOUR_MS)
    log.snapshot("a", START_MS, START_MS + HOUR_MS, summary_units={"value": 1, "ic": 2})
    log.snapshot("z", START_MS, START_MS + HOUR_MS, summary_units={"value": 1, "turnover": 3})
    return log


async def test_the_live_board_can_be_ranked_by_a_board_over_a_window(api):
    rows = await api.get("/reports/leaderboard")
    places = {row["model_id"]: (row["rank"], row["weighted"], row["score_recent"]) for row in rows}
    assert places["b"] == (1, 0.5, 0.5)
    assert places["a"] == (2, pytest.approx((0.9 + 3 * 0.1) / 4), pytest.approx((0.9 + 0.9 + 0.1) / 3))
    assert places["c"] == (None, None, 1.0)  # without a score in a scope of the board
    assert rows[0]["score_ranking"] == {"key": "weighted", "value": 0.5, "direction": "desc"}
    assert "of the period" not in rows[0]


async def test_a_board_has_a_column(api):
    columns = {
        column["property"]: column for column in (await api.get("/reports/schema"))["leaderboard_columns"]
    }
    assert columns["score_recent"]["tooltip"] == "Mean score of the last 24 h"
    assert columns["weighted"]["tooltip"] == "Mean over 2 scopes, each as score_recent"
    assert "of the period" not in columns


async def test_each_board_over_a_window_is_a_pool_and_the_whole_one_is_global(api):
    pools = (await api.get("/reports/pools"))["pools"]
    assert [(pool["pool"], pool["metric"]) for pool in pools] == [
        ("global", "avg_pnl"),
        ("weighted", "avg_pnl"),
    ]
    assert pools[1]["rankings"][0] == {
        "rank": 1, "model_id": "b", "model_name": "name of b", "avg_brier": 0.0, "avg_pnl": 0.5, "events_scored": 3
    }  # fmt: skip
    assert [row["model_id"] for row in pools[1]["rankings"]] == ["b", "a"]  # c is not ranked


async def test_the_chart_has_the_numbers_of_every_model_also_of_those_missing_in_the_latest_snapshot(api):
    widgets = (await api.get("/reports/schema"))["metrics_widgets"]
    series = widgets[0]["nativeConfiguration"]["yAxis"]["series"]
    assert [column["name"] for column in series] == ["ic", "turnover", "value"]
