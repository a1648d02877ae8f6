"""What the real web app reads, row by row: its fields, their types, and the rules that decide whether it looks right.

The test reads only answers, as the web app does: bare JSON, without a key. Each row of the table is one test.
"""

from __future__ import annotations

import re

import httpx
import pytest
from tests.logs import START_MS, TX_HASH

from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.projections.folding.projector import Projector
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings

NAIVE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")
ZULU = re.compile(NAIVE.pattern + "Z")
THIRTY_DAYS = {"start": "2023-03-01T00:00:00.000Z", "end": "2023-03-31T00:00:00.000Z"}
WINDOWS = ("score_recent", "score_steady", "score_anchor")
STATIC_COLUMNS = {
    1: "username",
    2: "model_id",
    3: "score_recent",
    4: "score_steady",
    5: "score_anchor",
}


@pytest.fixture
async def app(api):
    """The web app's own client: from a trusted network, without a key, cookies or an Origin."""
    application = create_app(Settings(api_settle_without_key=True), Sender(api.projector, api.stage))
    transport = httpx.ASGITransport(application, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        yield client


async def rows_of(app, path: str, **params) -> list[dict]:
    answer = await app.get(path, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    rows = answer.json()
    assert isinstance(rows, list)  # bare, no envelope
    return rows


async def test_leaderboard(app):
    """In display order. Every column's property is a key of the row. The status is a boolean."""
    rows = await rows_of(app, "/reports/leaderboard")
    ranks = [row["rank"] for row in rows]
    ranked = [rank for rank in ranks if rank is not None]
    assert ranked == sorted(ranked)
    assert ranks[len(ranked) :] == [None] * (len(ranks) - len(ranked))
    columns = (await app.get("/reports/schema")).json()["leaderboard_columns"]
    for row in rows:
        assert {column["property"] for column in columns} <= row.keys()
        assert isinstance(row["model_id"], str)
        assert isinstance(row["username"], str)
        assert isinstance(row["status"], bool)


async def test_models(app):
    for row in await rows_of(app, "/reports/models"):
        for name in ("model_id", "model_name", "cruncher_name", "cruncher_id", "deployment_id"):
            assert isinstance(row[name], str)
    listed = {row["model_id"] for row in await rows_of(app, "/reports/models")}
    assert {row["model_id"] for row in await rows_of(app, "/reports/leaderboard")} <= listed


async def test_schema(app):
    schema = (await app.get("/reports/schema")).json()
    assert schema.keys() == {"schema_version", "leaderboard_columns", "metrics_widgets"}
    columns = {column["id"]: column for column in schema["leaderboard_columns"]}
    assert len(columns) == len(schema["leaderboard_columns"])
    assert {number: columns[number]["property"] for number in STATIC_COLUMNS} == STATIC_COLUMNS
    for number, column in columns.items():
        assert column["type"] in {"USERNAME", "PROJECT", "VALUE", "REWARD_RANK"}
        assert column["format"] in {"percentage", "integer", "compact", "number", None} or re.fullmatch(
            r"decimal-\d", column["format"]
        )
        assert (number <= 5) == (column["property"] in STATIC_COLUMNS.values())
    assert columns[1]["type"] == "USERNAME"
    assert columns[2]["type"] == "PROJECT"
    assert columns[2]["nativeConfiguration"] == {"type": "model", "statusProperty": "status"}
    for widget in schema["metrics_widgets"]:
        assert widget["id"] >= 10
        assert widget["endpointUrl"] not in {
            "/reports/models/global",
            "/reports/predictions",
            "/reports/models/params",
        }
        native = widget["nativeConfiguration"]
        assert native["type"] in {"line", "gauge", "matrix"}
        for row in await rows_of(app, widget["endpointUrl"], **THIRTY_DAYS):
            assert NAIVE.fullmatch(row[native["xAxis"]["name"]])
            assert isinstance(row["model_id"], str)
            for series in native["yAxis"]["series"]:
                assert isinstance(row[series["name"]], float | int | None)
    urls = [widget["endpointUrl"] for widget in schema["metrics_widgets"]]
    assert len(set(urls)) == len(urls) > 0


async def test_a_small_score_reads_well_on_the_web_apps_first_start(app):
    """Then its own columns of five properties replace ours, and its windows have two decimals."""
    columns = (await app.get("/reports/schema")).json()["leaderboard_columns"]
    shown = {
        column["property"]: "decimal-2" if column["property"] in WINDOWS else column["format"]
        for column in columns
    }
    for row in await rows_of(app, "/reports/leaderboard"):
        value = row["score_ranking"]["value"]
        assert row["ranking_score"] == value
        exact = [name for name, form in shown.items() if form == "decimal-6" and row[name] == value]
        assert exact == ["ranking_score"]


@pytest.mark.parametrize("path", ["/reports/models/global", "/reports/models/params"])
async def test_window_charts(app, path):
    """x without a zone, numbers at the top level, and the filters' keys."""
    rows = await rows_of(app, path, projectIds="m1,m2", **THIRTY_DAYS)
    assert rows
    assert {row["model_id"] for row in rows} <= {"m1", "m2"}
    for row in rows:
        assert NAIVE.fullmatch(row["performed_at"])
        for window in WINDOWS:
            assert isinstance(row[window], float | int | None)
        if path.endswith("params"):
            assert isinstance(row["asset"], str)
            assert isinstance(row["param"], str)
            assert isinstance(row["horizon"], int)
            assert row["param"] == row["scope_key"]
            assert row["asset"] == row["scope"]["subject"]
    assert [row["performed_at"] for row in rows] == sorted(row["performed_at"] for row in rows)


async def test_prediction_chart(app):
    """An alert marks rows whose `score_success` is true with a reason, so the reason is null on success."""
    rows = await rows_of(app, "/reports/predictions", **THIRTY_DAYS)
    assert {row["status"] for row in rows} >= {"SCORED", "ABSENT"}
    for row in rows:
        assert NAIVE.fullmatch(row["performed_at"])
        assert isinstance(row["score_value"], float | int | None)
        assert (row["score_value"] is not None) == (row["status"] == "SCORED")
        assert row["score_success"] in (True, False, None)
        if row["score_success"]:
            assert row["score_failed_reason"] is None
        assert isinstance(row["asset"], str)
        assert isinstance(row["horizon"], int)
        assert isinstance(row["param"], str)


async def test_feeds(app):
    for row in await rows_of(app, "/reports/feeds"):
        assert isinstance(row["record_count"], int)
        for name in ("oldest_ts", "newest_ts", "watermark_ts", "watermark_updated_at"):
            assert ZULU.fullmatch(row[name])


async def test_feeds_tail(app):
    (feed, *_) = await rows_of(app, "/reports/feeds")
    wanted = {name: feed[name] for name in ("source", "subject", "kind", "granularity")}
    rows = await rows_of(app, "/reports/feeds/tail", limit=20, **wanted)
    assert 0 < len(rows) <= 20
    for row in rows:
        assert wanted.items() <= row.items()
        assert ZULU.fullmatch(row["ts_event"])
        assert ZULU.fullmatch(row["ts_ingested"])
        assert isinstance(row["values"], dict)
        assert isinstance(row["meta"], dict)
    assert [row["ts_event"] for row in rows] == sorted((row["ts_event"] for row in rows), reverse=True)


async def test_checkpoints(app):
    """`cruncher_index` is a position in `meta.ranking`, whose model_id is the one on chain."""
    rows = await rows_of(app, "/reports/checkpoints")
    assert [row["period_end"] for row in rows] == sorted((row["period_end"] for row in rows), reverse=True)
    for row in rows:
        assert ZULU.fullmatch(row["period_start"])
        assert ZULU.fullmatch(row["period_end"])
        assert ZULU.fullmatch(row["created_at"])
        (entry,) = row["entries"]
        ranking = row["meta"]["ranking"]
        assert isinstance(row["meta"]["snapshot_count"], int)
        assert row["meta"]["model_count"] == len(ranking)
        assert sum(reward["reward_pct"] for reward in entry["cruncher_rewards"]) == 1_000_000_000
        for reward in entry["cruncher_rewards"]:
            assert 0 <= reward["cruncher_index"] < len(ranking)
        for place in ranking:
            assert {
                "model_id",
                "model_name",
                "cruncher_name",
                "rank",
                "prediction_count",
                "snapshot_count",
            } <= (place.keys())
            assert isinstance(place["result_summary"], dict)
        assert {"compute_provider_rewards", "data_provider_rewards", "crunch"} <= entry.keys()
    for status in ("PENDING", "PAID"):
        assert all(
            row["status"] == status for row in await rows_of(app, "/reports/checkpoints", status=status)
        )


def obeys(command, _offset):
    """A stage that does what is requested."""
    where = {"checkpoint_id": command.data.checkpoint_id, "command_id": command.id}
    if isinstance(command, ev.ConfirmCheckpoint):
        data = ev.CheckpointSubmittedData(tx_hash=command.data.tx_hash, **where)
        return [ev.CheckpointSubmitted(id=f"{command.id}/done", at=START_MS, data=data)]
    return [
        ev.CheckpointClaimable(id=f"{command.id}/done", at=START_MS, data=ev.CheckpointAdvancedData(**where))
    ]


async def test_confirm_is_followed_at_once_by_patch(app, api):
    """The web app sends both in direct succession without a key, and reads only whether the status is 2xx."""
    pending = (await rows_of(app, "/reports/checkpoints", status="PENDING"))[0]
    api.stage.script = obeys
    confirm = await app.post(f"/reports/checkpoints/{pending['id']}/confirm", json={"tx_hash": TX_HASH})
    assert confirm.status_code == 200, confirm.text
    patch = await app.patch(f"/reports/checkpoints/{pending['id']}/status", json={"status": "CLAIMABLE"})
    assert patch.status_code == 200, patch.text
    row = (await app.get(f"/reports/checkpoints/{pending['id']}")).json()
    assert (row["status"], row["tx_hash"]) == ("CLAIMABLE", TX_HASH)
    assert ZULU.fullmatch(row["submitted_at"])


async def test_info_and_healthz(app):
    assert {"crunch_id", "crunch_address", "network"} <= (await app.get("/info")).json().keys()
    assert (await app.get("/healthz")).status_code == 200


async def test_an_error_has_a_detail(app):
    for answer in (
        await app.get("/reports/checkpoints/none"),
        await app.get("/reports/predictions", params={"limit": 0}),
        await app.post("/reports/checkpoints/none/confirm", json={}),
    ):
        assert isinstance(answer.json()["detail"], str)


async def test_an_empty_node_answers_empty_lists(tmp_path):
    """Then the web app shows "no results" and no error."""
    from tests.logs import LogBuilder, folded

    read = folded(LogBuilder(), tmp_path)
    application = create_app(Settings(), Sender(Projector(Settings(data_dir=tmp_path), read), None))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://node"
    ) as client:
        for path in (
            "leaderboard",
            "models",
            "models/global",
            "models/params",
            "predictions",
            "feeds",
            "checkpoints",
        ):
            assert await rows_of(client, f"/reports/{path}") == []
        assert (await client.get("/reports/schema")).json()["leaderboard_columns"]
    read.close()
