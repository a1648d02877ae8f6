"""The data of sparklines and rank changes, and the files of the page."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS

from coordinator.api.page import FOLDER
from coordinator.api.times import zulu


async def test_each_model_has_one_score_per_closed_period_and_a_rank_to_compare_with(api):
    body = await api.get("/reports/leaderboard/history")
    assert body["ends"] == [zulu(START_MS + HOUR_MS), zulu(START_MS + 2 * HOUR_MS)]
    assert body["series"]["m1"] == {"scores": [0.25, 0.5], "change_from": 1}
    assert body["change_since"] == body["ends"][0]  # nothing is a day old: the oldest is used
    assert (body["period_seconds"], body["ranking_key"]) == (3600, "score_recent")
    assert set(body["series"]) == {"m1", "m2"}


async def test_the_comparison_is_as_old_as_requested(api):
    body = await api.get("/reports/leaderboard/history", compare_hours=1)
    assert body["change_since"] == zulu(START_MS + HOUR_MS)
    body = await api.get("/reports/leaderboard/history", periods=1)
    assert body["ends"] == [zulu(START_MS + 2 * HOUR_MS)]


async def test_a_closed_period_is_added_and_a_gap_is_null(api, log):
    log.snapshot("m3", START_MS + 2 * HOUR_MS, START_MS + 3 * HOUR_MS, mean=0.9)
    count = len(log.records["snapshots"])
    await api.projector.take("snapshots", [(count - 1, log.records["snapshots"][-1])])
    body = await api.get("/reports/leaderboard/history")
    assert body["series"]["m1"]["scores"] == [0.25, 0.5, None]
    assert body["series"]["m3"] == {"scores": [None, None, 0.9], "change_from": None}


async def test_one_model_can_be_requested_alone(api):
    everyone = await api.get("/reports/models")
    assert await api.get("/reports/models/m1") == everyone[0]
    assert isinstance(
        await api.get("/reports/models/global"), list
    )  # an id cannot collide with one of our names
    await api.get("/reports/models/nobody", code=404)


@pytest.mark.parametrize("query", ["periods=0", "periods=97", "compare_hours=0"])
async def test_values_outside_of_the_bounds_are_422(api, query):
    await api.get(f"/reports/leaderboard/history?{query}", code=422)


@pytest.mark.parametrize("path", ["/", *(f"/page/{file.name}" for file in sorted(FOLDER.iterdir()))])
async def test_every_file_of_the_page_has_the_policy_and_is_revalidated(api, path):
    answer = await api.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    if path != "/":
        again = await api.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("path", ["/page/../page.py", "/page/%2e%2e/page.py", "/page//etc/passwd", "/page/", "/page/none.js"])  # fmt: skip
async def test_nothing_beside_the_page_is_served(api, path):
    assert (await api.client.get(path)).status_code == 404


def test_the_page_names_no_other_origin_and_has_no_inline_code():
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        if file.suffix == ".html":
            assert "<style" not in text
            assert "style=" not in text
            assert "onclick" not in text
            assert "<script>" not in text


def test_every_imported_module_exists():
    names = {file.name for file in FOLDER.iterdir()}
    for file in FOLDER.glob("*.js"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("import"):
                assert line.split('"')[1].removeprefix("./") in names, f"{file.name}: {line}"
