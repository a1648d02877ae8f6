"""`coordinator feeds list|probe` with sources that need no network, and with a server that does not answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.streams.sources.conftest import exchange  # noqa: F401 - the fixture
from tests.waiting import LIMIT_SECONDS, in_time
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.streams.clock import wall_ms


def feeds(*arguments: str, **environ: str):
    return CliRunner(env={"COLUMNS": "200", **environ}).invoke(app, ["feeds", *arguments])


def test_every_source_is_listed_with_what_it_delivers():
    result = feeds("list")
    assert result.exit_code == 0, result.output
    for name in ("binance", "candles", "file", "generated", "pyth"):
        assert name in result.output
    sources = {source["name"]: source for source in json.loads(feeds("list", "--json").output)["sources"]}
    assert "depth" in sources["binance"]["offers"]
    assert sources["pyth"]["origin"] == "built-in"
    assert not any(source["error"] for source in sources.values())


def test_a_probe_shows_the_first_records(tmp_path: Path):
    lines = tmp_path / "ticks.jsonl"
    now = wall_ms()
    rows = [{"ts": now - 5000 + i, "price": f"{i}.5"} for i in range(5)]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("file", "BTCUSDT", "--kind", "tick", "--granularity", "1s", "--seconds", "1")
    result = feeds("probe", *asked, FEED_OPT_PATH=str(lines))
    assert result.exit_code == 0, result.output
    assert "file/BTCUSDT/tick/1s: " in result.output
    assert "price" in result.output


async def test_a_probe_of_a_live_stream_closes_its_connection(exchange: Any):  # noqa: F811
    exchange.script = [[exchange.message(n) for n in range(5)] + ["hold"]]
    environ = {
        **os.environ,
        "FEED_OPT_REST_URL": exchange.rest_url,
        "FEED_OPT_WEBSOCKET_URL": exchange.websocket_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-Im", "coordinator.cli.main", "feeds", "probe", "binance", "BTCUSDT"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await in_time(process.communicate())
    assert (process.returncode, errors.decode()) == (0, "")
    first, *shown = out.decode().splitlines()
    assert first == "binance/BTCUSDT/candle/1m: live, 3 records"
    assert len(shown) == 3


def test_a_quiet_source_is_distinguished_from_a_dead_one_by_its_history():
    result = feeds("probe", "generated", "BTCUSDT", "--seconds", "0.5", "--granularity", "1h")
    assert result.exit_code == 0, result.output
    assert "of the last hour" in result.output or "live" in result.output


def test_a_source_that_does_not_answer_is_reported_with_exit_code_3():
    nobody = {"FEED_OPT_REST_URL": "http://127.0.0.1:9", "FEED_OPT_WEBSOCKET_URL": "ws://127.0.0.1:9"}
    result = feeds("probe", "binance", "BTCUSDT", "--seconds", "1", FEED_OPT_ATTEMPTS="1", **nobody)
    assert result.exit_code == 3, result.output
    assert "no record arrived in 1 s" in result.output
    assert "127.0.0.1:9" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nowhere", "BTCUSDT"), "feed source 'nowhere' is unknown; choose from binance"),
        (("binance", "BTCUSDT", "--kind", "news"), "binance delivers no news; it has candle"),
        (("candles", "BTCUSDT"), "needs the option path"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, complaint):
    result = feeds("probe", *arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.output


def test_a_backfill_without_a_kafka_is_one_line_with_exit_code_3():
    one_attempt = "import stamina; stamina.set_testing(True); from coordinator.cli.main import main; main()"
    done = subprocess.run(
        [
            *(sys.executable, "-Ic", one_attempt, "feeds", "backfill", "generated", "BTCUSDT"),
            *("candle", "1m", "--from", "2026-11-01T00:00:00Z", "--kafka", "127.0.0.1:9"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    (error_line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert error_line.startswith("error: Kafka at 127.0.0.1:9 does not answer")
    assert (done.returncode, done.stdout.strip()) == (3, "")
