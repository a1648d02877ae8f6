"""Pages: all of them together are the whole list, whatever their size, and a cursor of another list is refused."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from tests.logs import HOUR_MS, START_MS

from coordinator.api import checkpoints, models, predictions, snapshots

LISTS = {  # path: are its rows oldest first, so that pages go backwards?
    "/reports/predictions": True,
    "/reports/snapshots": False,
    "/reports/checkpoints": False,
    "/reports/models": False,
    "/reports/models/global": True,
    "/reports/models/params": True,
    "/reports/models/metrics": True,
}


@pytest.fixture
def log(log):
    """More than one of everything."""
    for hour in range(6, 12):
        log.snapshot("m1", START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS)
        log.snapshot("m2", START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS)
        log.checkpoint(hour * HOUR_MS * 6, {"m1": 600_000_000, "m2": 400_000_000})
        log.scored_until((hour + 4) * HOUR_MS)
    return log


async def walk(api, path: str, size: int, **params) -> list:
    pages = []
    asked = {"limit": size, **params}
    while True:
        answer = await api.client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        rows = answer.json()
        pages.append(rows)
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            assert "link" not in answer.headers
            break
        assert len(rows) <= size
        assert answer.headers["x-truncated"] == "true"
        link = answer.headers["link"]
        assert link.endswith('; rel="next"')
        following = parse_qs(urlsplit(link.partition(">")[0].removeprefix("<")).query)
        assert following["cursor"] == [cursor]
        asked["cursor"] = cursor
    if LISTS[path]:
        pages.reverse()
    return [row for page in pages for row in page]


@pytest.mark.parametrize("path", LISTS)
async def test_all_pages_are_the_whole_list(api, path):
    whole = await walk(api, path, 200)
    assert len(whole) > 4
    for size in (1, 2, 3, 4, len(whole) - 1, len(whole)):
        assert await walk(api, path, size) == whole


@pytest.mark.parametrize(
    "filters", [{"projectIds": "m2"}, {"projectIds": "m1,m2", "status": "SCORED"}, {"status": "ABSENT"}]
)
async def test_filters_apply_to_all_pages(api, filters):
    whole = await walk(api, "/reports/predictions", 200, **filters)
    assert whole
    assert await walk(api, "/reports/predictions", 1, **filters) == whole


@pytest.mark.parametrize(
    ("path", "where", "bound"),
    [
        ("/reports/predictions", predictions, "LOOKS_MAX"),
        ("/reports/snapshots", snapshots, "SNAPSHOTS_LOOKED_MAX"),
        ("/reports/models/metrics", snapshots, "SNAPSHOTS_LOOKED_MAX"),
        ("/reports/models/global", snapshots, "SNAPSHOTS_LOOKED_MAX"),
        ("/reports/models/params", models, "PERIODS_LOOKED_MAX"),
    ],
)
@pytest.mark.parametrize("ids", ["m2", "nobody", "m1,nobody"])
async def test_a_search_for_rare_rows_is_bounded(api, monkeypatch, path, where, bound, ids):
    """A search without a match does not read the whole history: it ends, and says where to continue."""
    whole = await walk(api, path, 200, projectIds=ids)
    assert (whole == []) == (ids == "nobody")
    monkeypatch.setattr(where, bound, 2)
    answer = await api.client.get(path, params={"projectIds": ids})
    assert len(answer.json()) <= 6  # three rounds of two entries
    assert "x-next-cursor" in answer.headers
    assert await walk(api, path, 200, projectIds=ids) == whole


async def test_rows_that_come_meanwhile_move_no_page(api, log):
    first = await api.client.get("/reports/predictions", params={"limit": 2})
    rest_before = await api.get("/reports/predictions", cursor=first.headers["x-next-cursor"])
    counts = {topic: len(records) for topic, records in log.records.items()}
    log.round(10 * HOUR_MS, {"m1": 0.1, "m2": 0.2})
    for topic, start in counts.items():
        fresh = list(enumerate(log.records[topic]))[start:]
        if fresh:
            await api.projector.take(topic, fresh)
    assert await api.get("/reports/predictions", cursor=first.headers["x-next-cursor"]) == rest_before


async def test_an_invalid_cursor_is_422(api):
    for path in LISTS:
        for cursor in ("", "x", "AAAA", "WzFd", "!!", "WzEsIC0xXQ", "9" * 900):
            answer = await api.client.get(path, params={"cursor": cursor})
            assert answer.status_code == 422, (path, cursor)
            assert "cursor" in answer.json()["detail"]


async def test_charts_get_flat_rows_of_numbers(api):
    metrics = await api.get("/reports/models/metrics")
    for row in metrics:
        assert not row["performed_at"].endswith("Z")
        assert all(not isinstance(value, (dict, list)) for value in row.values())
    summary = await api.get("/reports/models/summary")
    assert [row["model_id"] for row in summary] == sorted({row["model_id"] for row in metrics})
    for row in summary:
        assert row == [metric_row for metric_row in metrics if metric_row["model_id"] == row["model_id"]][-1]


async def test_rewards_are_paged_by_checkpoint(api):
    whole = await api.get("/reports/checkpoints/rewards", limit=200)
    pages, target = [], "/reports/checkpoints/rewards?limit=2"
    while target:
        answer = await api.client.get(target)
        pages.append(answer.json())
        assert len({row["checkpoint_id"] for row in pages[-1]}) <= 2
        target = answer.links["next"]["url"] if "next" in answer.links else None
    assert len(pages) > 2
    assert [row for page in reversed(pages) for row in page] == whole


async def test_checkpoints_of_very_many_models_make_short_pages_and_none_is_left_out(api, monkeypatch):
    whole = await api.get("/reports/checkpoints", limit=200)
    monkeypatch.setattr(checkpoints, "ENTRIES_MAX", 3)
    first = await api.client.get("/reports/checkpoints", params={"limit": 200})
    assert first.json() == whole[:1]  # two models each
    assert await walk(api, "/reports/checkpoints", 200) == whole


async def test_rewards_are_the_shares_of_offered_checkpoints(api):
    rewards = await api.get("/reports/checkpoints/rewards", limit=200)
    by_checkpoint: dict[str, int] = {}
    for row in rewards:
        by_checkpoint[row["checkpoint_id"]] = (
            by_checkpoint.get(row["checkpoint_id"], 0) + row["reward_frac64"]
        )
        assert row["reward_percent"] == row["reward_frac64"] / 10_000_000
    assert set(by_checkpoint.values()) == {1_000_000_000}
    only_of_m2 = await api.get("/reports/checkpoints/rewards", model_id="m2", limit=1)
    assert [row["model_id"] for row in only_of_m2] == ["m2"]


async def test_a_payload_is_enough_to_compute_the_emission_again(api):
    latest = await api.get("/reports/checkpoints/latest")
    payload = await api.get(f"/reports/checkpoints/{latest['id']}/payload")
    assert payload["emission"] == latest["entries"][0]
    assert [entry["model_id"] for entry in payload["ranking"]] == [
        entry["model_id"] for entry in latest["meta"]["ranking"]
    ]
    assert all(isinstance(entry["key_units"], int) for entry in payload["ranking"])
    await api.get("/reports/checkpoints/none/payload", code=404)
