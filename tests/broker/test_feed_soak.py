"""Recorded messages through a real feed worker into a real broker: the log holds what the file holds, and the worker's
memory does not grow.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.broker.crash import WorkerProcess, board
from tests.streams.sources.test_soak import SUBJECTS, record_messages

from coordinator.cli.feed_log import FeedLog
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import FeedGapClosed, FeedGapFound, FeedRecordReceived
from coordinator.streams.settings import Settings

pytestmark = pytest.mark.broker

PER_CONNECTION = 50_000
GROWTH_MB_MAX = 40
SERVER = Path(__file__).parents[1] / "streams" / "sources" / "recorded_server.py"


def resident_mb(worker: WorkerProcess) -> float:
    pages = int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("count", [30_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_the_log_has_every_recorded_fact_once(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path, count: int
) -> None:
    path = tmp_path / "messages.jsonl"
    began_ms = wall_ms() - (count // 6 + 60) * 1_000
    facts, expected = record_messages(path, count, began_ms // 1_000 * 1_000)
    server = subprocess.Popen(
        [sys.executable, "-I", str(SERVER), str(path), str(PER_CONNECTION)], stdout=subprocess.PIPE
    )
    settings = Settings(crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap)
    try:
        assert server.stdout is not None
        async with board(kafka_bootstrap, crunch_id, tmp_path) as field, FeedLog(settings) as log:
            worker = field.start(
                "feed",
                None,
                FEED_SOURCE="binance",
                FEED_SUBJECTS=",".join(SUBJECTS),
                FEED_GRANULARITY="1s",
                FEED_OPT_WEBSOCKET_URL=f"ws://127.0.0.1:{int(server.stdout.readline())}",
                FEED_OPT_REST_URL="http://127.0.0.1:1",
                FEED_OPT_ATTEMPTS="1",
            )
            closes: dict[tuple[int, int], str] = {}
            ids: Counter[str] = Counter()
            early_mb, open_gaps, began = 0.0, 0, 0.0
            async with asyncio.timeout(120 + count / 500):
                while len(closes) < facts:
                    async for decision in log.decisions():
                        for event in decision.events:
                            if isinstance(event, FeedRecordReceived):
                                data = event.data
                                ids[event.id] += 1
                                closes[data.ts_event, SUBJECTS.index(data.subject)] = data.values["close"]
                            open_gaps += isinstance(event, FeedGapFound) - isinstance(event, FeedGapClosed)
                        began = began or time.monotonic()
                        if not early_mb and len(closes) >= facts // 5:
                            early_mb = resident_mb(worker)
                    await asyncio.sleep(0.05)
            seconds, late_mb = time.monotonic() - began, resident_mb(worker)
    finally:
        server.kill()
        server.wait()
    digest = hashlib.sha256()
    for (open_ms, number), price in sorted(closes.items()):
        digest.update(f"{SUBJECTS[number]} {open_ms} {price}\n".encode())
    print(
        f"{count} messages in {seconds:.1f} s; {early_mb:.0f} MB after a fifth, {late_mb:.0f} MB at the end"
    )
    assert (len(closes), digest.hexdigest()) == (facts, expected)
    assert set(ids.values()) == {1}
    assert late_mb - early_mb < GROWTH_MB_MAX
