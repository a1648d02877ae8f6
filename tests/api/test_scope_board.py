"""The board of one scope alone, the list of boards, and both as of the past."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder

from coordinator.streams import events as ev

SCOPES = [
    ev.Scope(scope_key="60s", subject=subject, horizon_seconds=60, step_seconds=15, interval_seconds=60)
    for subject in ("BTCUSDT", "ETHUSDT")
]
ETHER = ev.BoardTerms(
    name="ether", window="score_recent", every_scope=True, parts=[ev.BoardPart("ETHUSDT", "60s", "1")]
)


@pytest.fixture
def log() -> LogBuilder:
    log = LogBuilder()
    log.terms(scopes=SCOPES, subjects=["BTCUSDT", "ETHUSDT"], boards=[ETHER])
    for model_id in ("a", "b", "c", "gone"):
        log.model(model_id)
    log.round(MINUTE_MS, {"a": 0.9, "b": 0.5, "c": 1.0})
    log.round(2 * MINUTE_MS, {"a": 0.1, "b": 0.5, "gone": 0.2}, subject="ETHUSDT")
    log.inputs_until(5 * MINUTE_MS)
    log.round(6 * MINUTE_MS, {"a": 0.9}, subject="ETHUSDT")
    log.model_left("gone", at=START_MS + 8 * MINUTE_MS)
    log.inputs_until(10 * MINUTE_MS)
    log.snapshot("a", START_MS, START_MS + HOUR_MS, summary_units={"value": 1})
    return log


async def test_the_board_of_a_scope_has_its_models_in_order_and_no_ranks(api):
    rows = await api.get("/reports/leaderboard", scope="ETHUSDT/60s")
    assert [(row["model_id"], row["ranking_score"], row["scored_count"], row["status"]) for row in rows] == [
        ("a", 0.5, 2, True),
        ("b", 0.5, 1, True),
        ("gone", 0.2, 1, False),
    ]
    assert {(row["rank"], row["unranked_reason"]) for row in rows} == {(None, "a scope alone has no ranks")}
    assert set(rows[0]["score_metrics"]) == {"score_recent", "score_steady", "score_anchor"}
    assert [row["model_id"] for row in await api.get("/reports/leaderboard", scope="BTCUSDT/60s")] == [
        "c",
        "a",
        "b",
    ]


async def test_it_is_answered_as_of_the_past(api):
    then = START_MS + 5 * MINUTE_MS
    rows = await api.get("/reports/leaderboard", scope="ETHUSDT/60s", as_of=then)
    assert [(row["model_id"], row["ranking_score"]) for row in rows] == [
        ("b", 0.5),
        ("gone", 0.2),
        ("a", 0.1),
    ]
    names = await api.get("/reports/leaderboard/boards", as_of=then)
    assert "value" not in {board["name"] for board in names}


async def test_all_boards_are_named_with_the_contract_s_first(api):
    names = await api.get("/reports/leaderboard/boards")
    assert [(board["name"], board["kind"], board["decides"]) for board in names] == [
        ("score_recent", "window", True),
        ("score_steady", "window", False),
        ("score_anchor", "window", False),
        ("ether", "board", False),
        ("value", "summary", False),
        ("BTCUSDT/60s", "scope", False),
        ("ETHUSDT/60s", "scope", False),
    ]
    for board in names:
        await api.get(
            "/reports/leaderboard", **{"scope" if board["kind"] == "scope" else "by": board["name"]}
        )


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"scope": "DOGE/60s"}, 404),
        ({"scope": "nothing"}, 404),
        ({"scope": "ETHUSDT/60s", "by": "ether"}, 422),
        ({"scope": "x" * 301}, 422),
    ],
)
async def test_an_unknown_board_is_refused(api, query, code):
    await api.get("/reports/leaderboard", code=code, **query)


async def test_the_numbers_are_those_of_the_explanation(api):
    rows = await api.get("/reports/leaderboard", scope="ETHUSDT/60s")
    for row in rows:
        explanation = await api.get(f"/reports/explain/board/{row['model_id']}", scope="ETHUSDT/60s")
        shown = {value["name"]: value["shown"] for step in explanation["steps"] for value in step["result"]}
        assert float(shown["score_recent"]) == pytest.approx(row["ranking_score"])
