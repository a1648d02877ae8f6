"""The past of a feed through the real commands, a real broker and a real feed worker, killed on the way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests import forked
from tests.broker.crash import Board, Plan, board
from tests.streams.sources.conftest import FIRST_OPEN_MS, MINUTE_MS, LocalExchange
from tests.streams.sources.servers import rest_server
from tests.waiting import limit
from websockets.asyncio.server import serve

from coordinator.streams import events as ev
from coordinator.streams.log.envelope import decode_event

pytestmark = pytest.mark.broker

DAYS = 7
CANDLES = DAYS * 1_440
BACKFILL = ("backfill", "binance", "BTCUSDT", "candle", "1m", "--from", str(FIRST_OPEN_MS))


class Command:
    """One `coordinator feeds ...` as a child process."""

    def __init__(self, bootstrap: str, crunch_id: str, rest_url: str) -> None:
        self._environ = {
            **os.environ,
            "KAFKA_BOOTSTRAP": bootstrap,
            "CRUNCH_ID": crunch_id,
            "FEED_OPT_REST_URL": rest_url,
            "COLUMNS": "200",
        }

    def begin(self, *arguments: str) -> forked.ForkedProcess:
        with Path(os.devnull).open("wb") as out:
            return forked.start(["feeds", *arguments], env=self._environ, out=out)

    async def run(self, *arguments: str, code: int = 0) -> str:
        done = await asyncio.to_thread(forked.run, ["feeds", *arguments], env=self._environ)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr


async def records(field: Board) -> list[ev.FeedRecordReceived]:
    all_events = [decode_event(event) for events in await field.events("feeds") for event in events]
    return [event for event in all_events if isinstance(event, ev.FeedRecordReceived)]


def facts(records_: list[ev.FeedRecordReceived]) -> list[tuple[int, int, str]]:
    return sorted(
        (record.data.ts_event, record.data.revision, record.data.values["open"]) for record in records_
    )


async def test_a_backfill_killed_with_its_worker_continues_and_is_complete(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path
) -> None:
    exchange = LocalExchange()
    exchange.candles_count, exchange.now_ms = CANDLES, FIRST_OPEN_MS + CANDLES * MINUTE_MS
    to = str(exchange.now_ms)
    async with (
        rest_server(exchange.rest_app()) as rest_url,
        serve(exchange.play, "127.0.0.1", 0, close_timeout=1) as sockets,
        board(kafka_bootstrap, crunch_id, tmp_path) as field,
        board(kafka_bootstrap, f"{crunch_id}-copy", tmp_path) as copy,
    ):
        live: dict[str, Any] = {
            "FEED_SOURCE": "binance",
            "FEED_OPT_REST_URL": rest_url,
            "FEED_OPT_WEBSOCKET_URL": f"ws://127.0.0.1:{next(iter(sockets.sockets)).getsockname()[1]}",
        }
        node = Command(kafka_bootstrap, crunch_id, rest_url)
        worker = field.start("feed", Plan("durable-send", "feeds", count=8), **live)
        first = node.begin(*BACKFILL, "--to", to)
        assert await worker.wait_end() == -9
        first.kill()
        first.wait()
        field.workers.remove(worker)
        before = len(await records(field))
        assert 0 < before < CANDLES

        asked_before = len(exchange.requests)
        field.start("feed", None, **live)
        output = await node.run(*BACKFILL, "--to", to)
        backfilled = await records(field)
        assert facts(backfilled) == [
            (FIRST_OPEN_MS + n * MINUTE_MS, 0, exchange.row(n)[1]) for n in range(CANDLES)
        ]
        assert len({record.id for record in backfilled}) == len(backfilled) == CANDLES
        assert all(record.data.backfilled for record in backfilled)
        assert "records given" in output
        assert (
            len(exchange.requests) - asked_before <= (DAYS + 1) * 3
        )  # days that are whole are not asked for again

        again = len(exchange.requests)
        assert f"0 records given, {CANDLES:,} were there already" in await node.run(*BACKFILL, "--to", to)
        assert len(exchange.requests) - again <= 1  # the worker's own look back at most

        out = tmp_path / "out"
        for file_format in ("parquet", "csv"):
            wanted = ("binance", "BTCUSDT", "candle", "1m", "--out", str(out / file_format))
            output = await node.run("export", *wanted, "--format", file_format)
            assert f"{CANDLES:,} records of {DAYS + 1} days" in output
            days = sorted((out / file_format).rglob("records.*"))
            assert len(days) == DAYS + 1
            assert days[0].parent.relative_to(out / file_format).as_posix() == (
                "source=binance/subject=BTCUSDT/kind=candle/granularity=1m/date=2023-11-14"
            )
            assert not list(out.rglob("*.partial"))

        copy.start("feed", None, **live)
        other = Command(kafka_bootstrap, f"{crunch_id}-copy", rest_url)
        half = sorted((out / "csv").rglob("records.csv"))[:3]
        for file in half:
            assert "0 were there already" in await other.run("import", str(file))
        output = await other.run("import", str(out / "parquet"))
        assert "records given" in output
        assert facts(await records(copy)) == facts(backfilled)


async def test_without_a_worker_the_records_wait_in_the_log_and_the_command_says_so(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.cli import feed_log
    from coordinator.infra.log.commands import KafkaCommandPort
    from coordinator.streams.log.errors import WorldError
    from coordinator.streams.ports import FeedRecord
    from coordinator.streams.settings import Settings

    monkeypatch.setattr(feed_log, "DECIDED_SECONDS_MAX", 0.5)
    settings = Settings(crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap)
    record = FeedRecord(
        "generated", "BTCUSDT", "candle", "1m", FIRST_OPEN_MS, FIRST_OPEN_MS + MINUTE_MS, {"close": "1"}
    )
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        port = KafkaCommandPort(kafka_bootstrap, crunch_id)
        await port.start()
        async with feed_log.FeedLog(settings) as log:
            await log.read()
            giver = feed_log.FeedGiver(log, port)
            await giver.give(record)
            with pytest.raises(WorldError, match="no feed worker has decided one"):
                await giver.finish()
        await port.stop()
        field.start("feed", None, FEED_SOURCE="generated")
        async with limit():
            while not any(record.data.ts_event == FIRST_OPEN_MS for record in await records(field)):
                await asyncio.sleep(0.1)


async def test_a_corrected_file_imported_again_is_a_correction_and_is_reported(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path
) -> None:
    def file(name: str, *, changed: int | None = None) -> str:
        rows = [
            f"{FIRST_OPEN_MS + n * MINUTE_MS},1,3,0.5,{'2.5' if n == changed else '2'},10" for n in range(50)
        ]
        (tmp_path / name).write_text("open_time,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
        return str(tmp_path / name)

    whose = ("--source", "generated", "--subject", "BTCUSDT", "--kind", "candle", "--granularity", "1m")
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        field.start("feed", None, FEED_SOURCE="generated")
        node = Command(kafka_bootstrap, crunch_id, "http://127.0.0.1:9")
        output = await node.run("import", file("first.csv"), *whose)
        assert "50 records given (0 of them corrections), 0 were there already" in output
        output = await node.run("import", file("corrected.csv", changed=7), *whose)
        assert "1 records given (1 of them corrections), 49 were there already" in output
        output = await node.run("import", str(tmp_path / "corrected.csv"), *whose)
        assert "0 records given (0 of them corrections), 50 were there already" in output
        output = await node.run("import", str(tmp_path), *whose, code=2)
        assert "have other values for BTCUSDT" in output
        (tmp_path / "bad.csv").write_text((tmp_path / "first.csv").read_text() + "yesterday,1,1,1,1,1\n")
        output = await node.run("import", str(tmp_path / "bad.csv"), *whose, code=2)
        assert "1 rows are not records, the first in line 52; nothing was changed" in output
        output = await node.run("import", str(tmp_path / "bad.csv"), *whose, "--skip-bad-rows")
        assert (
            "1 records given (1 of them corrections), 49 were there already" in output
        )  # the first file's word again
        assert "50 records, 1 rows refused" in output
        at = FIRST_OPEN_MS + 7 * MINUTE_MS
        revisions = [record.data for record in await records(field) if record.data.ts_event == at]
        assert [(data.revision, data.values["close"]) for data in revisions] == [
            (0, "2"),
            (1, "2.5"),
            (2, "2"),
        ]
