"""What the feed worker takes in: `.venv/bin/python -I tests/bench/feed_intake.py`.

All on this machine, over real sockets, into a real broker:
- messages: 200,000 recorded closed candles of three subjects from a websocket through the Binance source and the feed
  worker's own live loop into `feeds`; messages per second until the last is durable.
- backfill: 30,000 candles from a local history server through the same way as `coordinator feeds backfill`.
- first record: from the start of a feed worker's process, and from its claim, to the first durable record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coordinator.cli.feed_log import FeedGiver, FeedLog
from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import EmbeddedBroker, free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings, environment
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.waiting import Patience

MESSAGES = 200_000
CANDLES = 30_000
SUBJECTS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FIRST_OPEN = 1_700_000_040_000
HERE = Path(__file__).resolve().parent


def record(path: Path) -> None:
    with path.open("w") as file:
        for n in range(MESSAGES):
            subject, open_ms = SUBJECTS[n % 3], FIRST_OPEN + n // 3 * 1_000
            file.write(
                f'{{"stream":"x","data":{{"e":"kline","E":{open_ms + 1_000},"s":"{subject}","k":{{"t":{open_ms},'
                f'"T":{open_ms + 999},"s":"{subject}","i":"1s","o":"20000.1","c":"20000.2","h":"20000.3",'
                f'"l":"20000.0","v":"1.5","x":true}}}}}}\n'
            )


async def messages(bootstrap: str, url: str) -> float:
    """Messages per second, from the worker's claim (it then connects) to the last one's acknowledgement."""
    settings = Settings(
        crunch_id="intake", kafka_bootstrap=bootstrap, feed_subjects=SUBJECTS, feed_granularity="1s"
    )
    await create_topics(bootstrap, "intake")
    io = KafkaLog(bootstrap, "intake")
    await io.connect()
    shelf = ContractShelf()
    shelf.put(CONTRACT)
    last_at = FIRST_OPEN + MESSAGES // 3 * 1_000
    tenure = FeedTenure(
        io,
        InputStage(shelf),
        "bench",
        settings,
        Intake(
            BinanceSource(Hosts("http://127.0.0.1:1", url), patience=Patience(attempts=1)), DeadLetters(io)
        ),
        TermsMade(lambda: make_terms(shelf.current, shelf.current_hash, settings, 0)),
        MachineTime(lambda: last_at),
    )
    await tenure.start()
    began, done = time.monotonic(), 0
    while done < MESSAGES:
        await asyncio.sleep(0.01)
        done = sum(len(series.on_grid) for series in tenure.feeds.own.known.values())
    await tenure._feeds_owned.flush()
    seconds = time.monotonic() - began
    await tenure.close()
    await io.close()
    return MESSAGES / seconds


async def backfill(bootstrap: str, rest_url: str) -> float:
    """Seconds for 30,000 candles, from the first request to the feed worker's last decision."""
    settings = Settings(crunch_id="past", kafka_bootstrap=bootstrap)
    wanted = Subscription("binance", "BTCUSDT", "candle", "1m")
    port = KafkaCommandPort(bootstrap, "past")
    await port.start()
    began = time.monotonic()
    async with FeedLog(settings) as log:
        giver = FeedGiver(log, port)
        source = BinanceSource(Hosts(rest_url, "ws://127.0.0.1:1"))
        async for record in source.history(wanted, FIRST_OPEN + 1, FIRST_OPEN + CANDLES * 60_000):
            await giver.give(record)
        await giver.finish()
    seconds = time.monotonic() - began
    await port.stop()
    if giver.given != CANDLES:
        raise RuntimeError(f"{giver.given} candles came")
    return seconds


async def first_record(bootstrap: str, crunch_id: str, rest_url: str, log: Path) -> tuple[float, float]:
    """(seconds from the start of the process, from its claim) to the first record in `feeds`.

    The worker goes on: the backfill needs one.
    """
    await create_topics(bootstrap, crunch_id)
    settings = Settings(crunch_id=crunch_id, kafka_bootstrap=bootstrap)
    variables = {"FEED_OPT_REST_URL": rest_url, "FEED_OPT_WEBSOCKET_URL": "ws://127.0.0.1:1"}
    began = time.monotonic()
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-Im", "coordinator.cli.main", "worker", "feed"],
            env={**os.environ, **environment(settings), **variables},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    workers.append(worker)
    claimed = 0.0
    async with FeedLog(settings) as feed:
        while True:
            async for decision in feed.decisions():
                if any(type(event).__name__ == "FeedRecordReceived" for event in decision.events):
                    now = time.monotonic()
                    return now - began, now - claimed
            if not claimed and b"stage_resumed" in log.read_bytes():
                claimed = time.monotonic()
            await asyncio.sleep(0.01)


workers: list[subprocess.Popen[bytes]] = []


def main() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "messages.jsonl"
        record(path)
        ensure_runtime()
        broker = EmbeddedBroker(Path(folder) / "broker", *free_ports(2))
        broker.start()
        stack.callback(broker.stop)
        server = subprocess.Popen(
            [
                sys.executable,
                "-I",
                str(HERE.parent / "feeds" / "recorded_server.py"),
                str(path),
                str(MESSAGES),
            ],
            stdout=subprocess.PIPE,
        )
        history = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "history_server.py")], stdout=subprocess.PIPE, text=True
        )
        stack.callback(lambda: [(child.kill(), child.wait()) for child in (server, history, *workers)])
        broker.wait_ready(90)
        assert server.stdout is not None
        assert history.stdout is not None
        rest_url = f"http://127.0.0.1:{int(history.stdout.readline())}"
        log = Path(folder) / "worker.log"
        process_seconds, claim_seconds = asyncio.run(first_record(broker.bootstrap, "past", rest_url, log))
        figures["first_record_after_process_start_seconds"] = round(process_seconds, 2)
        figures["first_record_after_claim_seconds"] = round(claim_seconds, 2)
        figures["backfill_30000_candles_seconds"] = round(
            asyncio.run(backfill(broker.bootstrap, rest_url)), 2
        )
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        figures["messages_per_second"] = round(asyncio.run(messages(broker.bootstrap, url)))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
