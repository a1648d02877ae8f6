"""Kept plans over HTTP: a list, newest first; one plan with the models of a period; and the reason if a plan cannot be
read.
"""

from __future__ import annotations

import pytest
from tests.logs import START_MS
from tests.planned import HOUR, MADE_AT, NAME, keep_plan, planned_rules

from coordinator.api import plans
from coordinator.api.times import zulu


@pytest.fixture
def folder(api):
    return api.projector.settings.data_dir


async def test_without_a_plan_the_list_is_empty_and_a_name_is_unknown(api, folder):
    for file in (folder / "plans").iterdir():
        file.unlink()
    assert await api.get("/reports/plans") == []
    assert "coordinator plan" in (await api.get(f"/reports/plans/{NAME}", 404))["detail"]


async def test_the_newest_plan_is_first_and_a_broken_file_is_reported(api, folder):
    keep_plan(folder, MADE_AT + 1, values_set={"min_participation": 0.9})
    (folder / "plans" / "by-hand.json").write_text("{")
    newest, first, broken = await api.get("/reports/plans")
    assert (newest["name"], newest["values_set"]) == (f"{'b' * 12}-{MADE_AT + 1}", {"min_participation": 0.9})
    assert (first["name"], first["change"], first["first_affected"]) == (NAME, "payout", zulu(START_MS))
    assert broken["name"] == "by-hand"
    assert "is not a plan" in broken["fault"]
    assert broken["change"] is None


async def test_a_rewritten_plan_is_read_again(api, folder):
    assert (await api.get(f"/reports/plans/{NAME}"))["answers_count"] == 720
    keep_plan(folder, plan=planned_rules(answers_count=5))
    assert (await api.get(f"/reports/plans/{NAME}"))["answers_count"] == 5
    assert (await api.get("/reports/plans"))[0]["answers_count"] == 5


async def test_the_first_payment_that_differs_is_shown_or_the_requested_one(api):
    plan = await api.get(f"/reports/plans/{NAME}")
    assert (plan["period_start"], [period["differs"] for period in plan["periods"]]) == (
        zulu(START_MS),
        [True, False],
    )
    fallen = plan["models"][1]
    assert (fallen["model_id"], fallen["old_rank"], fallen["new_rank"]) == ("m1", 1, None)
    assert fallen["new_unranked_reason"] == "<b>min_participation</b> is 0.9"
    assert plan["models"][0]["model_name"] == api.read.models.get("m2").model_name
    later = await api.get(f"/reports/plans/{NAME}?period={START_MS + 7 * HOUR}")
    assert (later["period_start"], len(later["models"])) == (zulu(START_MS + 6 * HOUR), 1)
    assert (
        "no such period"
        in (await api.get(f"/reports/plans/{NAME}?period={START_MS + 99 * HOUR}", 404))["detail"]
    )


@pytest.mark.parametrize("name", ["..%2Fshadow%2Forder", "%2e%2e", "x" * 300])
async def test_no_name_leads_out_of_the_folder(api, name):
    answer = await api.client.get(f"/reports/plans/{name}")
    assert answer.status_code in (404, 422)


async def test_an_oversized_plan_is_named_and_not_read(api, monkeypatch):
    monkeypatch.setattr(plans, "BYTES_MAX", 100)
    plans._read_once.cache_clear()
    plans._head_of.cache_clear()
    (head,) = await api.get("/reports/plans")
    assert "larger than 100 bytes" in head["fault"]
    assert "larger than 100 bytes" in (await api.get(f"/reports/plans/{NAME}", 404))["detail"]
