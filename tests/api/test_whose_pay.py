"""Scores and payments belong to a model's id, whatever its name is and whether or not it still runs."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS, busy_log

from coordinator.api.times import zulu

LATER_MS = START_MS + 8 * HOUR_MS


@pytest.fixture
def log():
    return busy_log()


async def told(api, log, *changes):
    before = len(log.records["models"])
    for change in changes:
        change()
    await api.projector.take("models", list(enumerate(log.records["models"]))[before:])


async def test_two_models_may_swap_their_names(api, log):
    board = {row["model_id"]: row for row in await api.get("/reports/leaderboard")}
    paid = await api.get("/reports/checkpoints/latest")
    names = {model_id: board[model_id]["model_name"] for model_id in ("m1", "m2")}
    await told(
        api,
        log,
        lambda: log.model("m1", at=LATER_MS, model_name=names["m2"]),
        lambda: log.model("m2", at=LATER_MS, model_name=names["m1"]),
    )
    after = {row["model_id"]: row for row in await api.get("/reports/leaderboard")}
    assert (after["m1"]["model_name"], after["m2"]["model_name"]) == (names["m2"], names["m1"])
    for model_id in ("m1", "m2"):
        assert after[model_id]["score_metrics"] == board[model_id]["score_metrics"]
        assert after[model_id]["rank"] == board[model_id]["rank"]
    assert (await api.get("/reports/checkpoints/latest"))["entries"] == paid["entries"]
    past = await api.get("/reports/leaderboard", as_of=zulu(LATER_MS - 1))
    assert {row["model_id"]: row["model_name"] for row in past if row["model_id"] in names} == names


async def test_a_reused_name_takes_over_nothing(api, log):
    name = next(row["model_name"] for row in await api.get("/reports/leaderboard") if row["model_id"] == "m1")
    await told(
        api,
        log,
        lambda: log.model_left("m1", at=LATER_MS),
        lambda: log.model("m9", at=LATER_MS, model_name=name),
    )
    rows = {row["model_id"]: row for row in await api.get("/reports/leaderboard")}
    assert rows["m9"]["scored_count"] == 0
    assert rows["m9"]["rank"] is None
    assert rows["m1"]["scored_count"] > 0


async def test_a_model_that_left_after_it_earned_keeps_its_share_and_the_sum_is_whole(api, log):
    before = await api.get("/reports/checkpoints/latest")
    await told(api, log, lambda: log.model_left("m1", at=LATER_MS))
    after = await api.get("/reports/checkpoints/latest")
    assert after["entries"] == before["entries"]
    rewards = after["entries"][0]["cruncher_rewards"]
    assert sum(reward["reward_pct"] for reward in rewards) == 1_000_000_000
    answer = await api.client.get(f"/reports/checkpoints/{after['id']}/emission/cli-format")
    shares = answer.json()["crunchEmission"]
    assert round(sum(shares.values()), 7) == 100
