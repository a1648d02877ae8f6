"""How fast records go from a websocket into the durable log: `.venv/bin/python -I tests/bench/feed_intake.py`.

A process plays 200,000 recorded candles over a real socket; the Binance source reads them, the feed stage makes
one append of what the queue holds, and each append is acknowledged by a real broker before the next is made, as
the live loop of the feed worker does it. Prints messages per second.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from coordinator.infra.broker import EmbeddedBroker, free_ports
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.topics import create_topics
from coordinator.streams.agents.log_io import KafkaLog
from coordinator.streams.agents.ownership import OwnedTopic
from coordinator.streams.feed import FeedStage
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance import BinanceSource

MESSAGES = 200_000
SUBJECTS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FIRST_OPEN = 1_700_000_000_000
APPEND_RECORDS_MAX = 1_000


def record(path: Path) -> None:
    with path.open("w") as file:
        for n in range(MESSAGES):
            subject, open_ms = SUBJECTS[n % 3], FIRST_OPEN + n // 3 * 1_000
            file.write(
                f'{{"stream":"x","data":{{"e":"kline","E":{open_ms + 1_000},"s":"{subject}","k":{{"t":{open_ms},'
                f'"T":{open_ms + 999},"s":"{subject}","i":"1s","o":"20000.1","c":"20000.2","h":"20000.3",'
                f'"l":"20000.0","v":"1.5","x":true}}}}}}\n'
            )


async def intake(bootstrap: str, url: str) -> float:
    """Seconds from the first record to the last one's acknowledgement."""
    await create_topics(bootstrap, "intake")
    io, stage = KafkaLog(bootstrap, "intake"), FeedStage()
    await io.connect()
    owned = OwnedTopic(io, "feeds", "bench")
    await owned.claim(stage.remember)
    queue: asyncio.Queue[FeedRecord] = asyncio.Queue(10_000)
    source = BinanceSource("http://127.0.0.1:1", url)

    async def stream() -> None:
        async with aclosing(
            source.stream([Subscription("binance", s, "candle", "1s") for s in SUBJECTS])
        ) as records:
            async for one in records:
                await queue.put(one)

    streaming, done = asyncio.create_task(stream()), 0
    records = [await queue.get()]
    began = time.monotonic()
    while True:
        while len(records) < APPEND_RECORDS_MAX and not queue.empty():
            records.append(queue.get_nowait())
        draft = stage.offer(records, records[-1].at, rehearsal=False)
        if draft is not None:
            stage.remember(draft)
            await (await owned.send(list(draft.events), {}, {}))
        done += len(records)
        if done >= MESSAGES:
            break
        records = [await queue.get()]
    seconds = time.monotonic() - began
    streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)
    await owned.close()
    await io.close()
    return seconds


def main() -> None:
    server_file = Path(__file__).resolve().parents[1] / "feeds" / "recorded_server.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.jsonl"
        record(path)
        ensure_runtime()
        broker = EmbeddedBroker(Path(folder) / "broker", *free_ports(2))
        broker.start()
        server = subprocess.Popen(
            [sys.executable, "-I", str(server_file), str(path), str(MESSAGES)], stdout=subprocess.PIPE
        )
        try:
            broker.wait_ready(90)
            assert server.stdout is not None
            seconds = asyncio.run(intake(broker.bootstrap, f"ws://127.0.0.1:{int(server.stdout.readline())}"))
        finally:
            server.kill()
            server.wait()
            broker.stop()
    print(f"{MESSAGES} messages from socket to durable log in {seconds:.1f} s: {MESSAGES / seconds:.0f}/s")


if __name__ == "__main__":
    main()
