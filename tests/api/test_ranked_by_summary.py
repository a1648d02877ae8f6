"""A board by a key of the snapshot summary: on every route and on the stream, now and in the past."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS, UNIT, LogBuilder

from coordinator.api.live_state import LiveState
from coordinator.api.times import naive, zulu

ENDS = [START_MS + HOUR_MS, START_MS + 2 * HOUR_MS]


@pytest.fixture
def log() -> LogBuilder:
    """Two hours: `a` has the better scores, `b` the better ic from the second hour on."""
    log = LogBuilder()
    log.terms(ranking_key="ic")
    for model_id in ("a", "b", "c"):
        log.model(model_id)
    for hour, ic in enumerate([{"a": 2, "b": 1}, {"a": 3, "b": 4}]):
        start = START_MS + hour * HOUR_MS
        log.round(hour * HOUR_MS + 60_000, {"a": 0.9, "b": 0.5, "c": 0.1})
        log.inputs_until((hour + 1) * HOUR_MS)
        log.scored_until((hour + 1) * HOUR_MS)
        for model_id, units in ic.items():
            log.snapshot(
                model_id, start, start + HOUR_MS, summary_units={"ic": units * UNIT, "turnover": 5 * UNIT}
            )
    return log


async def test_the_leaderboard_ranks_by_it_with_its_time(api):
    rows = await api.get("/reports/leaderboard")
    assert [(row["rank"], row["model_id"], row["ic"], row["score_recent"]) for row in rows] == [
        (1, "b", 4.0, 0.5), (2, "a", 3.0, 0.9), (None, "c", None, 0.1)
    ]  # fmt: skip
    assert {row["ranked_as_of"] for row in rows} == {naive(ENDS[1])}
    assert rows[0]["score_ranking"] == {"key": "ic", "value": 4.0, "direction": "desc"}
    assert rows[0]["ranking_score"] == rows[0]["score_metrics"]["ic"] == 4.0
    assert rows[2]["unranked_reason"] == "no score in the last closed period"


async def test_as_of_the_first_hour_the_order_was_the_other_one(api):
    rows = await api.get("/reports/leaderboard", as_of=zulu(ENDS[0]))
    assert [(row["rank"], row["model_id"], row["ic"]) for row in rows][:2] == [(1, "a", 2.0), (2, "b", 1.0)]
    assert rows[0]["ranked_as_of"] == naive(ENDS[0])


async def test_any_window_or_key_can_be_requested_instead(api):
    by_window = await api.get("/reports/leaderboard", by="score_recent")
    assert [row["model_id"] for row in by_window] == ["a", "b", "c"]
    assert (by_window[0]["ranked_as_of"], "ic" in by_window[0]) == (None, False)
    by_key = await api.get("/reports/leaderboard", by="turnover")
    assert [(row["rank"], row["turnover"]) for row in by_key] == [(1, 5.0), (1, 5.0), (None, None)]
    problem = await api.get("/reports/leaderboard", 404, by="sharpe")
    assert "no window, board or key of the summary is 'sharpe'" in str(problem)


async def test_history_models_pools_and_columns_have_it(api):
    history = await api.get("/reports/leaderboard/history")
    assert history["ranking_key"] == "ic"
    assert {name: series["scores"] for name, series in history["series"].items()} == {
        "a": [2.0, 3.0], "b": [1.0, 4.0]
    }  # fmt: skip
    points = await api.get("/reports/models/global", start=zulu(START_MS), end=zulu(ENDS[1]), projectIds="b")
    assert [point["score_ranking"]["value"] for point in points] == [1.0, 4.0]
    pools = (await api.get("/reports/pools"))["pools"]
    assert [(row["model_id"], row["avg_pnl"]) for row in pools[0]["rankings"]] == [("b", 4.0), ("a", 3.0)]
    columns = {
        column["property"]: column for column in (await api.get("/reports/schema"))["leaderboard_columns"]
    }
    assert columns["ic"]["tooltip"] == "As of the end of the last snapshot period"
    assert "turnover" not in columns
    models = {row["model_id"]: row["rank"] for row in await api.get("/reports/models")}
    assert models == {"a": 2, "b": 1, "c": None}


async def test_listeners_get_the_board_when_a_snapshot_changes_it(api, log):
    state = LiveState(api.read)
    offsets = {topic: len(records) for topic, records in log.records.items()}
    state.turn(offsets)
    log.snapshot("c", ENDS[0], ENDS[1], summary_units={"ic": 9 * UNIT})
    new = log.records["snapshots"][offsets["snapshots"] :]
    await api.projector.take("snapshots", list(enumerate(new, start=offsets["snapshots"])))
    after = offsets | {"snapshots": len(log.records["snapshots"])}
    state.turn(after)
    sent = state.changes_since(1).decode()
    assert f'"ranked_as_of":"{zulu(ENDS[1])}"' in sent
    assert '"model_id":"c"' in sent
    newcomer = LiveState(api.read)
    newcomer.turn(after)
    assert newcomer.since(offsets).board
