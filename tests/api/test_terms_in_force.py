"""No answer follows terms that are announced for later. Past periods are shown as they were ranked."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, busy_log

from coordinator.api.times import zulu
from coordinator.streams import events as ev

FAR_MS = START_MS + 48 * HOUR_MS
LATER = {
    "contract_hash": "n" * 64,
    "ranking_direction": "asc",
    "ranking_key": "brief",
    "windows": [ev.Window(name="brief", hours=2)],
    "value_field": "ic",
    "scoring_hash": "other",
    "crunch_pubkey": "1" * 32,
    "scopes": [
        ev.Scope(scope_key="60s", subject="BTCUSDT", horizon_seconds=900, step_seconds=1, interval_seconds=60)
    ],
}
ONE_DAY = {"windows": [ev.Window(name="brief", hours=24)]}
PATHS = (
    "/info", "/reports/leaderboard", "/reports/leaderboard/history", "/reports/schema", "/reports/models/global",
    "/reports/models/params", "/reports/predictions", "/reports/predictions.csv", "/reports/predictions.ndjson",
    "/reports/models", "/reports/snapshots", "/reports/checkpoints",
)  # fmt: skip
SPAN = {"start": zulu(START_MS), "end": zulu(START_MS + 24 * HOUR_MS)}


async def answers(client):
    return {path: (await client.get(path, params=SPAN)).text for path in PATHS}


async def test_announced_terms_change_no_answer_before_their_time(api, log):
    before = await answers(api.client)
    log.terms(START_MS + HOUR_MS, effective_from=FAR_MS, **LATER)
    for topic in ("inputs", "scores", "snapshots", "checkpoints"):
        records = log.records[topic]
        await api.projector.take(topic, [(len(records) - 1, records[-1])])
    assert await answers(api.client) == before


@pytest.fixture
def changed_log():
    """Two periods by one rule, then two by another that ranks in the other direction and by another window."""
    log = busy_log()
    log.terms(
        effective_from=START_MS + 2 * HOUR_MS,
        **(LATER | ONE_DAY | {"value_field": "value", "scoring_hash": ""}),
    )
    log.round(2 * HOUR_MS + MINUTE_MS, {"m1": 0.5, "m2": 0.25})
    log.scored_until(3 * HOUR_MS)
    log.inputs_until(3 * HOUR_MS)
    return log


class TestOnceTheyHold:
    @pytest.fixture
    def log(self, changed_log):
        return changed_log

    async def test_the_board_says_that_its_windows_mix_two_contracts(self, api):
        rows = await api.get("/reports/leaderboard")
        assert rows[0]["mixed_contracts"] == ["c" * 64, "n" * 64]
        assert rows[0]["score_ranking"]["direction"] == "asc"

    async def test_past_periods_keep_their_key_and_direction(self, api):
        rows = await api.get("/reports/models/global", **SPAN)
        assert {row["score_ranking"]["key"] for row in rows} == {"score_recent"}
        body = await api.get("/reports/leaderboard/history")
        assert body["ranking_key"] == "score_recent"
        assert body["series"]["m1"]["change_from"] == 1

    async def test_the_past_keeps_its_rule(self, api):
        rows = await api.get("/reports/leaderboard", as_of=zulu(START_MS + 2 * HOUR_MS))
        assert {row["score_ranking"]["key"] for row in rows} == {"score_recent"}
        assert {tuple(row["mixed_contracts"]) for row in rows} == {()}
