"""A name that there is not is 404 and says what there is; only a chart's `projectIds` is answered by what there is."""

from __future__ import annotations

import pytest

from coordinator.api.model_names import NAMES_SHOWN_MAX, what_exists

DECIDED = "it had no effect and was not refused, as far as the commands are decided"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/reports/snapshots?model_id=zzz", "there is no model 'zzz'; there are: "),
        ("/reports/checkpoints/rewards?model_id=zzz", "there is no model 'zzz'; there are: "),
        ("/reports/predictions.csv?projectIds=zzz", "there is no model 'zzz'; there are: "),
        ("/reports/predictions.ndjson?projectIds=m1,zzz", "there is no model 'zzz'; there are: "),
        ("/reports/predictions.parquet?projectIds=zzz", "there is no model 'zzz'; there are: "),
        ("/reports/models/zzz", "there is no model 'zzz'; there are: "),
        ("/reports/models/zzz/state", "there is no model 'zzz'; there are: "),
        ("/reports/leaderboard?by=score_recnt", "nearest: score_recent"),
        ("/reports/leaderboard?scope=BTCUSD/60s", "nearest: BTCUSDT/60s"),
        ("/reports/commands/zzz", "'zzz' is no id of a command"),
    ],
)
async def test_a_name_that_there_is_not_is_404_with_what_there_is(api, path, says):
    answer = await api.client.get(path)
    assert answer.status_code == 404, answer.text
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/reports/predictions", "/reports/snapshots", "/reports/checkpoints/rewards"]
    + [f"/reports/models/{name}" for name in ("global", "params", "metrics", "summary")],
)
async def test_a_chart_of_models_that_are_not_there_is_an_empty_list(api, path):
    """The web app keeps the chosen ids in its address, and shows what it is given."""
    answer = await api.client.get(path, params={"projectIds": "zzz"})
    assert (answer.status_code, answer.json()) == (200, [])


async def test_a_feed_that_is_not_there_is_an_empty_list(api):
    """The web app's page of feeds asks this route, too."""
    assert await api.get("/reports/feeds/tail", subject="DOGE") == []


async def test_a_command_that_nobody_saw_is_undecided_and_says_how_far_was_looked(api):
    answer = await api.get("/reports/commands/cmd/" + "0" * 24)
    assert answer["state"] == "undecided"
    assert answer["reason"].startswith(DECIDED)
    assert "never sent" in answer["reason"]


def test_what_exists_is_bounded():
    names = [f"{number:05}" for number in range(20_000)]
    assert what_exists("00001x", names).count(",") <= NAMES_SHOWN_MAX
    assert what_exists("zzz", names).endswith(" and 19,995 more")
    assert what_exists("zzz", []) == "there is none yet"
