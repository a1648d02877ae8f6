"""The main job, end to end: candles in, and every score and every share computed a second time by other code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests import recompute
from tests.broker.backtested import backtested, differences
from tests.broker.records import PROJECTIONS, records_of
from tests.candles import START, candle_file

from coordinator.cli.shared import DEMO_CONTRACT
from coordinator.cli.up_plan import example_models
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.models.host.model_folder import read_models
from coordinator.streams.settings import Settings

pytestmark = pytest.mark.broker

SECONDS_MAX = 900
MODELS = len(read_models(example_models()))


@pytest.mark.parametrize(("hours", "period_hours"), [(2, 1), pytest.param(72, 6, marks=pytest.mark.slow)])
async def test_every_score_and_every_share_follows_from_the_file(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path, hours: int, period_hours: int
):
    period_seconds = period_hours * 3_600
    candles = candle_file(tmp_path)
    until = START + hours * 3_600_000
    summary_file = tmp_path / "summary.json"
    (port,) = free_ports(1)
    command = [sys.executable, "-Im", "coordinator.cli.main", "up", "--kafka", kafka_bootstrap]
    command += ["--data-dir", str(tmp_path / "node"), "--port", str(port), "--candles", str(candles)]
    command += ["--until", str(until), "--summary", str(summary_file)]
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "CRUNCH_ID": crunch_id,
            "CHECKPOINT_INTERVAL_SECONDS": str(period_seconds),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"the page is http://127.0.0.1:{port}" in done.stdout

    prices = {at: close for at, close in recompute.closes(candles).items() if at <= until}
    topics = {
        topic: recompute.events(await records_of(kafka_bootstrap, crunch_id, topic))
        for topic in ("predictions", "scores", "snapshots", "checkpoints")
    }
    rounds = [event for event in topics["predictions"] if event["kind"] == "RoundOpened"]
    assert len(rounds) == hours * 60
    assert all(len(event["data"]["roster"]) == MODELS for event in rounds)

    expected = recompute.scores_by_prediction(topics["predictions"], prices)
    scored = {
        f"{event['data']['input_id']}/{model_id}": units
        for event in topics["scores"]
        if event["kind"] == "RoundScored"
        for model_id, units in zip(event["data"]["models"], event["data"]["units"]["value"], strict=True)
    }
    assert len(expected) == (hours * 60 - 1) * MODELS  # the last minute's horizon lies beyond the run
    assert scored == expected

    opened = [event["data"] for event in topics["checkpoints"] if event["kind"] == "CheckpointOpened"]
    assert len(opened) == hours // period_hours
    for checkpoint in opened:
        means = recompute.period_means(expected, checkpoint["period_start"], checkpoint["period_end"])
        assert {row["model_id"]: row["key_units"] for row in checkpoint["ranking"]} == means
        paid = {
            checkpoint["ranking"][reward["cruncher_index"]]["model_id"]: reward["reward_pct"]
            for reward in checkpoint["emission"]["cruncher_rewards"]
        }
        assert paid == recompute.shares(means)
        assert sum(paid.values()) == 1_000_000_000

    settings = Settings(
        crunch_id=crunch_id,
        contract=DEMO_CONTRACT,
        feed_source="candles",
        feed_candles_file=str(candles),
        replay_until_ms=until,
        checkpoint_interval_seconds=period_seconds,
    )
    compared, differing = differences(topics, backtested(settings, tmp_path / "backtest"))
    assert compared["predictions"] == hours * 60 * MODELS
    assert compared["scores"] == len(expected)
    assert compared["checkpoints"] == hours // period_hours
    assert compared["snapshots"] == hours * MODELS
    assert differing == []

    summary = json.loads(summary_file.read_text())
    assert summary["feed_records"] == hours * 60
    assert summary["inputs"] == {"received": hours * 60, "resolved": hours * 60 - 1}
    assert summary["predictions"] == {
        "pending": MODELS,
        "scored": len(expected),
        "replaced": 0,
        "no_score": 0,
        "failed": 0,
        "absent": 0,
    }
    assert summary["snapshots"] == hours * MODELS
    assert [
        (
            checkpoint_["status"],
            checkpoint_["period_start"],
            checkpoint_["period_end"],
            checkpoint_["sum"],
            checkpoint_["rehearsal"],
        )
        for checkpoint_ in summary["checkpoints"]
    ] == [
        ("PENDING", end - period_seconds * 1000, end, 1_000_000_000, True)
        for end in range(START + period_seconds * 1000, until + 1, period_seconds * 1000)
    ]
    rewards = summary["latest_emission"]["cruncher_rewards"]
    assert sum(reward["reward_pct"] for reward in rewards) == 1_000_000_000
    assert sorted(reward["cruncher_index"] for reward in rewards) == list(range(MODELS))
    assert set(summary["state_hash"]) == PROJECTIONS
    assert all(len(digest) == 64 for digest in summary["state_hash"].values())
    assert summary["duplicates_ignored"] == 0
    assert summary["dead_letters"] == 0
    assert summary["restarts"] == dict.fromkeys(
        ("feed", "predict", "score", "checkpoint", "report", "models"), 0
    )
    assert summary["rehearsal"] is True
    assert summary["clock"] == until
    board = [row for row in summary["leaderboard"] if row["rank"] is not None]
    assert [row["rank"] for row in board] == list(range(1, MODELS + 1))
    # T is the last InputsUntil; the day before it, by whole hours, and no score at or after it.
    recent = recompute.period_means(expected, until // 3_600_000 * 3_600_000 - 24 * 3_600_000, until)
    assert {row["model_id"]: round(row["score_recent"] * 10**9) for row in board} == recent
    assert len(set(recent.values())) == MODELS
