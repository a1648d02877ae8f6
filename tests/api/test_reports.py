"""The answers of the routes: the web app's fields, limits, times and numbers."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import msgspec
import pytest
from tests.logs import HOUR_MS, PUBKEY, START_MS

from coordinator.api.times import naive, parse_ms, zulu
from coordinator.streams import events as ev


async def test_the_leaderboard_is_a_bare_array_in_order_with_numbers_at_the_top_level(api):
    rows = await api.get("/reports/leaderboard")
    # m3 was never scored: charges alone rank nobody. m4 and m5 never answered.
    assert [row["rank"] for row in rows] == [1, 2, None, None, None]
    for row in rows:
        assert {"model_id", "model_name", "cruncher_name", "username", "status", "created_at"} <= row.keys()
        assert row["username"] == row["cruncher_name"] == f"cruncher of {row['model_id']}"
    assert rows[0]["model_id"] == "m1"
    assert rows[0]["score_recent"] == 0.5
    assert rows[0]["status"] is True
    assert rows[-1] | {"rank": None, "status": False, "score_recent": None} == rows[-1]


async def test_the_leaderboard_ranks_by_any_window(api):
    rows = await api.get("/reports/leaderboard?by=score_steady")
    assert [row["rank"] for row in rows][:2] == [1, 2]
    assert {row["score_ranking"]["key"] for row in rows} == {"score_steady"}
    assert all(row["ranking_score"] == row["score_steady"] for row in rows)
    answer = await api.client.get("/reports/leaderboard?by=nothing")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(
        "by: no window, board or key of the summary is 'nothing'; there are: "
    )


async def test_the_leaderboard_is_encoded_once_per_folded_version(api, log):
    first = (await api.client.get("/reports/leaderboard")).content
    assert (await api.client.get("/reports/leaderboard")).content is not None
    version = api.read.leaderboard.version
    log.model("m6")
    await api.projector.take("models", [(len(log.records["models"]) - 1, log.records["models"][-1])])
    assert api.read.leaderboard.version == version + 1
    assert (await api.client.get("/reports/leaderboard")).content != first


async def test_models_have_the_five_strings(api):
    rows = await api.get("/reports/models")
    assert len(rows) == 5
    for row in rows:
        assert all(
            isinstance(row[name], str)
            for name in ("model_id", "model_name", "cruncher_name", "cruncher_id", "deployment_id")
        )


async def test_a_models_row_shows_its_outcomes(api, log):
    count = len(log.records["models"])

    async def take(event):
        log.append("models", event)
        await api.projector.take("models", list(enumerate(log.records["models"]))[count:])
        return {row["model_id"]: row for row in await api.get("/reports/models")}

    log.model("zed", deployment_id="zed-d1")
    row = (await take(failure("zed", "zed-d1", "MULTIPLE_FAILED", "raises")))["zed"]
    assert row["state"] == "RUNNING"
    assert (row["deployments"], row["wallet_pubkey"], row["hotkey"]) == (1, None, None)
    assert row["last_failure"] == {"code": "MULTIPLE_FAILED", "reason": "raises", "at": naive(START_MS + 7)}
    assert row["first_seen_at"] <= row["last_seen_at"]
    gone = ev.ModelLeftData(model_id="zed", deployment_id="zed-d1", reason="stopped")
    row = (await take(ev.ModelLeft(id="left/zed", at=START_MS + 9, data=gone)))["zed"]
    assert (row["state"], row["reason"], row["last_seen_at"]) == ("LEFT", "stopped", naive(START_MS + 9))
    ban = ev.ModelBannedData(model_id="zed", reason="copied")
    row = (await take(ev.ModelBanned(id="ban/zed", at=START_MS + 10, data=ban)))["zed"]
    assert (row["state"], row["reason"]) == ("BANNED", "copied")
    lift = ev.ModelReadmittedData(model_id="zed", reason="cleared")
    row = (await take(ev.ModelReadmitted(id="lift/zed", at=START_MS + 11, data=lift)))["zed"]
    assert (row["state"], row["reason"]) == ("LEFT", "stopped")


async def test_events_before_the_nodes_first_tick_have_no_time(api, log):
    count = len(log.records["models"])
    for at in (0, START_MS + 5):
        data = ev.ModelSeenData(
            model_id="early", model_name="early", deployment_id="d1", cruncher_id="c", cruncher_name="c"
        )
        log.append("models", ev.ModelSeen(id=f"early/{at}", at=at, data=data))
        if at == 0:
            log.append("models", msgspec.structs.replace(failure("early", "d1", "X", "y"), at=0))
        await api.projector.take("models", list(enumerate(log.records["models"]))[count:])
        count = len(log.records["models"])
        row = {row["model_id"]: row for row in await api.get("/reports/models")}["early"]
        assert row["first_seen_at"] == (naive(at) if at else None)
        assert (row["state"], row["deployments"]) == ("RUNNING", 1)
        assert row["last_failure"]["at"] is None


def failure(model_id, deployment_id, code, reason):
    data = ev.ModelFailureData(model_id=model_id, deployment_id=deployment_id, code=code, reason=reason)
    return ev.ModelFailureReported(id=f"failed/{model_id}", at=START_MS + 7, data=data)


async def test_charts_get_times_without_a_zone_and_flat_numbers(api):
    rows = await api.get("/reports/models/global", projectIds="m1,m2")
    assert [row["model_id"] for row in rows].count("m1") == 2
    assert rows[0]["performed_at"] == naive(START_MS + HOUR_MS)
    assert rows[0]["score_recent"] == 0.25
    assert rows[0]["score_anchor"] is None
    params = await api.get("/reports/models/params", projectIds="m1")
    assert [row["performed_at"] for row in params] == [
        naive(START_MS + 6 * HOUR_MS),
        naive(START_MS + 9 * HOUR_MS),
    ]
    assert params[0] | {"asset": "BTCUSDT", "horizon": 60, "param": "60s", "score_recent": 0.5} == params[0]


async def test_predictions_show_their_outcomes(api):
    rows = await api.get("/reports/predictions", projectIds="m1,m3", limit=6)
    by_status = {row["status"]: row for row in rows}
    assert (
        by_status["PENDING"] | {"score_value": None, "score_success": None, "score_failed": False}
        == (by_status["PENDING"])
    )
    assert by_status["FAILED"]["score_failed_reason"] == "the scoring function raised"
    scored = by_status["SCORED"]
    assert scored | {"score_value": 0.5, "score_success": True, "score_failed_reason": None} == scored
    assert scored["output"] == {"value": 0.5}
    assert scored["performed_at"].endswith(".001")
    assert by_status["ABSENT"]["score_charge"] == -1.0
    assert [row["performed_at"] for row in rows] == sorted(row["performed_at"] for row in rows)


async def test_a_span_filters_by_time_in_iso_or_ms(api):
    everything = await api.get("/reports/predictions", limit=1000)
    first = await api.get("/reports/predictions", end=zulu(START_MS))
    assert len(first) == 4 < len(everything)
    assert first == await api.get("/reports/predictions", start=str(START_MS), end=str(START_MS))


async def test_feeds_have_times_with_z(api):
    (row,) = await api.get("/reports/feeds")
    assert row["record_count"] == 18
    assert row["oldest_ts"] == zulu(START_MS)
    tail = await api.get("/reports/feeds/tail", source="generated", subject="BTCUSDT", limit=3)
    assert len(tail) == 3
    assert tail[0]["values"] == {"close": 610.0}
    assert tail[0]["ts_event"].endswith("Z")
    assert await api.get("/reports/feeds/tail", subject="DOGE") == []


async def test_snapshots_are_newest_first(api):
    rows = await api.get("/reports/snapshots", model_id="m1")
    assert [row["result_summary"] for row in rows] == [{"value": 0.5}, {"value": 0.25}]
    assert rows[0]["prediction_count"] == 4
    assert rows[0]["period_end"] == zulu(START_MS + 2 * HOUR_MS)


async def test_a_checkpoint_has_the_web_apps_shape(api):
    rows = await api.get("/reports/checkpoints")
    assert [row["status"] for row in rows] == ["WITHHELD", "PENDING"]
    assert rows[0]["reason"] == "scores do not add up"
    checkpoint = (await api.get("/reports/checkpoints", status="PENDING"))[0]
    assert checkpoint["entries"][0]["cruncher_rewards"][0] == {"cruncher_index": 0, "reward_pct": 625_000_000}
    assert checkpoint["meta"]["model_count"] == 2
    assert checkpoint["meta"]["ranking"][0] | {
        "model_id": "m1", "model_name": "name of m1", "cruncher_name": "cruncher of m1", "rank": 1,
        "prediction_count": 360, "snapshot_count": 6, "result_summary": {"value": 0.5},
    } == checkpoint["meta"]["ranking"][0]  # fmt: skip
    assert (checkpoint["tx_hash"], checkpoint["submitted_at"]) == (None, None)
    assert checkpoint["period_start"] == zulu(START_MS)
    assert (await api.get("/reports/checkpoints/latest"))["id"] == checkpoint["id"]
    assert (await api.get(f"/reports/checkpoints/{checkpoint['id']}"))["id"] == checkpoint["id"]


async def test_the_emission_is_the_bytes_that_were_hashed(api):
    latest = await api.get("/reports/emissions/latest")
    answer = await api.client.get(f"/reports/checkpoints/{latest['checkpoint_id']}/emission")
    assert hashlib.sha256(answer.content).hexdigest() == latest["emission_sha256"]
    assert answer.json() == latest["emission"]
    assert sum(reward["reward_pct"] for reward in answer.json()["cruncher_rewards"]) == 1_000_000_000


async def test_cli_format_sums_to_exactly_100_by_wallet(api, log):
    checkpoint_id = (await api.get("/reports/checkpoints/latest"))["id"]
    assert await api.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format") == {
        "crunch": PUBKEY,
        "crunchEmission": {PUBKEY: 100.0},  # both models have one wallet
        "computeProvider": {},
        "dataProvider": {},
    }
    third = log.checkpoint(12 * HOUR_MS, {"m3": 333_333_334, "m4": 333_333_333, "m5": 333_333_333})
    await api.projector.take(
        "checkpoints", [(len(log.records["checkpoints"]) - 1, log.records["checkpoints"][-1])]
    )
    answer = await api.client.get(f"/reports/checkpoints/{third}/emission/cli-format")
    assert b'"m3":33.3333334,' in answer.content
    import json

    shares = json.loads(answer.content, parse_float=Decimal)["crunchEmission"].values()
    assert sum(shares) == Decimal(100)
    prizes = await api.get(f"/reports/checkpoints/{third}/prizes", total_prize=100)
    assert [prize["prize"] for prize in prizes] == [34, 33, 33]
    assert prizes[0]["prizeId"] == f"{third}-m3"


async def test_a_withheld_emission_is_not_handed_out(api):
    checkpoint_id = (await api.get("/reports/checkpoints", status="WITHHELD"))[0]["id"]
    for what in ("emission", "emission/cli-format", "prizes?total_prize=1"):
        answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/{what}")
        assert answer.status_code == 409
        assert answer.json()["state"] == "WITHHELD"


async def test_the_schema_keeps_the_web_apps_ids(api):
    schema = await api.get("/reports/schema")
    columns = {column["id"]: (column["type"], column["property"]) for column in schema["leaderboard_columns"]}
    assert columns == {
        1: ("USERNAME", "username"),
        2: ("PROJECT", "model_id"),
        3: ("VALUE", "score_recent"),
        4: ("VALUE", "score_steady"),
        5: ("VALUE", "score_anchor"),
        10: ("VALUE", "rank"),
        11: ("VALUE", "ranking_score"),
    }


@pytest.mark.usefixtures("folded_here")
async def test_info_and_health_and_summary(api):
    assert await api.get("/info") == {"crunch_id": "btc-up", "crunch_address": PUBKEY, "network": "solana"}
    health = await api.get("/healthz")
    assert (health["status"], health["open_gaps"], health["sources"]) == ("ok", 0, [])
    api.projector.read.feeds.clock = api.projector.stages["scores"].decided_at + 90_000
    health = await api.get("/healthz")
    assert {stage["stage"]: stage["behind_seconds"] for stage in health["stages"]}["scores"] == 90.0
    metrics = (await api.client.get("/metrics")).text
    assert 'coordinator_stage_behind_seconds{stage="scores"} 90.0' in metrics
    summary = await api.get("/reports/summary")
    assert summary["feed_records"] == 18
    assert summary["dead_letters"] == 2
    assert summary["illegal_transitions"] == 0
    assert all(len(state_hash) == 64 for state_hash in summary["state_hash"].values())


async def test_health_is_progress(api):
    api.projector._ends["scores"] = 10_000
    api.projector._last_progress -= 3600
    assert (await api.get("/healthz", code=503))["status"] == "stalled"
    api.projector.error = ValueError("scores offset 7: unknown kind")
    assert (await api.get("/healthz", code=503))["error"] == "scores offset 7: unknown kind"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/reports/predictions?limit=0", 422),
        ("/reports/predictions?limit=10001", 422),
        ("/reports/predictions?status=LOST", 422),
        ("/reports/predictions?start=yesterday", 422),
        ("/reports/models/global?end=99999999999999999", 422),
        ("/reports/feeds/tail?limit=201", 422),
        ("/reports/checkpoints?status=LOST", 422),
        ("/reports/checkpoints/ckp_none", 404),
        ("/reports/checkpoints/ckp_none/emission", 404),
        ("/reports/checkpoints/ckp_none/prizes?total_prize=-1", 422),
    ],
)
async def test_a_wrong_request_is_answered_with_its_status(api, path, status):
    await api.get(path, code=status)


async def test_the_page_loads_nothing_from_elsewhere(api):
    page = await api.client.get("/")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01", 1000),
        ("1500", 1500),
    ],
)
def test_times_are_read_in_all_formats(text, ms):
    assert parse_ms(text) == ms


def test_times_are_written_with_and_without_z():
    assert naive(START_MS + 7) == "2023-03-10T00:00:00.007"
    assert zulu(START_MS) == "2023-03-10T00:00:00.000Z"
