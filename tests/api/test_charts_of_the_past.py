"""What the web app's charts request: the last 30 days by the wall clock, all models, no limit."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, busy_log

from coordinator.api import predictions
from coordinator.api.times import zulu

DAY_MS = 24 * HOUR_MS


@pytest.fixture
def log():
    """The log of the other tests, and a second subject at each point of its nine hours."""
    log = busy_log()
    for minute in range(0, 540, 30):
        log.round(minute * MINUTE_MS, {"m1": 0.5, "m2": 0.25}, subject="ETHUSDT")
    return log


async def test_too_many_rows_are_thinned_evenly_over_the_requested_time_and_the_answer_says_so(
    api, monkeypatch
):
    """The newest 1,000 rows of 30 days covered only the last 2 h 20 min of seven models."""
    monkeypatch.setattr(predictions, "DEFAULT_LIMIT", 40)
    asked = {"start": zulu(START_MS), "end": zulu(START_MS + DAY_MS)}
    answer = await api.client.get("/reports/predictions", params=asked)
    rows = answer.json()
    assert answer.headers["x-truncated"] == "true"
    assert answer.headers["x-thinned"].startswith(f"{len(rows)} rows of rounds spread evenly")
    assert 20 < len(rows) <= 40
    times = sorted({row["performed_at"][:16] for row in rows})
    assert times[0].endswith("T00:00")
    assert times[-1].endswith("T09:02")  # the newest round
    hours = {time[11:13] for time in times}
    assert len(hours) >= 5
    assert {"04", "05"} & hours
    middle = [row for row in rows if row["performed_at"][:16] == times[len(times) // 2]]
    assert {row["subject"] for row in middle} == {"BTCUSDT", "ETHUSDT"}
    assert rows == sorted(rows, key=lambda row: row["performed_at"])


async def test_fewer_rows_are_complete_and_a_page_is_the_newest_rows(api, monkeypatch):
    asked = {"start": zulu(START_MS), "end": zulu(START_MS + DAY_MS)}
    answer = await api.client.get("/reports/predictions", params=asked)
    assert "x-thinned" not in answer.headers
    monkeypatch.setattr(predictions, "DEFAULT_LIMIT", 40)
    page = await api.client.get("/reports/predictions", params=asked | {"limit": "40"})
    assert page.json() == answer.json()[-40:]
    assert "x-thinned" not in page.headers
    assert page.headers["x-next-cursor"]


@pytest.mark.parametrize("path", ["predictions", "models/global", "models/params", "snapshots"])
async def test_a_window_after_the_clock_of_a_rehearsing_node_ends_at_that_clock(api, path):
    """A rehearsal of 2023 left every chart empty, because the app requested the last 30 days of today."""
    clock = api.read.feeds.clock
    now = START_MS + 1_000 * DAY_MS
    answer = await api.client.get(
        f"/reports/{path}", params={"start": zulu(now - 30 * DAY_MS), "end": zulu(now)}
    )
    meant = {"start": zulu(clock - 30 * DAY_MS), "end": zulu(clock)}
    assert answer.json() == await api.get(f"/reports/{path}", **meant)
    assert answer.json()
    assert answer.headers["x-window"] == f"{meant['start']}/{meant['end']}"


@pytest.mark.parametrize("path", ["predictions", "predictions.ndjson", "snapshots"])
async def test_a_window_that_ends_before_it_begins_is_empty(api, path):
    asked = {"start": "9999-12-31T23:59:58Z", "end": zulu(START_MS)}
    answer = await api.client.get(f"/reports/{path}", params=asked)
    assert (answer.status_code, answer.text.strip()) in {(200, "[]"), (200, "")}
    assert "x-window" not in answer.headers


async def test_a_window_that_includes_the_clock_and_one_in_the_past_are_as_requested(api):
    clock = api.read.feeds.clock
    inside = await api.client.get(
        "/reports/predictions", params={"start": zulu(clock - HOUR_MS), "end": zulu(clock + DAY_MS)}
    )
    assert "x-window" not in inside.headers
    past = {"start": zulu(clock + DAY_MS), "as_of": zulu(clock)}
    assert await api.get("/reports/predictions", **past) == []
