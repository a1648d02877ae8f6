"""An unknown name is 404 with the names that exist. Only a chart's `projectIds` is answered with the known ones."""

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
        ("/reports/commands/zzz", "'zzz' is not the id of a command"),
    ],
)
async def test_an_unknown_name_is_404_with_the_existing_names(api, path, says):
    answer = await api.client.get(path)
    assert answer.status_code == 404, answer.text
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/reports/predictions", "/reports/snapshots", "/reports/checkpoints/rewards"]
    + [f"/reports/models/{name}" for name in ("global", "params", "metrics", "summary")],
)
async def test_a_chart_of_unknown_models_is_an_empty_list(api, path):
    """The web app keeps the chosen ids in its address, and shows what it receives."""
    answer = await api.client.get(path, params={"projectIds": "zzz"})
    assert (answer.status_code, answer.json()) == (200, [])


async def test_an_unknown_feed_is_an_empty_list(api):
    """The web app's page of feeds uses this route too."""
    assert await api.get("/reports/feeds/tail", subject="DOGE") == []


async def test_an_unknown_command_is_undecided_with_the_position_up_to_which_was_searched(api):
    answer = await api.get("/reports/commands/cmd/" + "0" * 24)
    assert answer["state"] == "undecided"
    assert answer["reason"].startswith(DECIDED)
    assert "never sent" in answer["reason"]


def test_the_list_of_existing_names_is_bounded():
    names = [f"{number:05}" for number in range(20_000)]
    assert what_exists("00001x", names).count(",") <= NAMES_SHOWN_MAX
    assert what_exists("zzz", names).endswith(" and 19,995 more")
    assert what_exists("zzz", []) == "there is none yet"
