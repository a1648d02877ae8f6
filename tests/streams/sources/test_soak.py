"""Recorded messages through a real socket, from another process: nothing is lost or repeated, and memory does not grow."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.waiting import Patience

SUBJECTS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FIRST_OPEN = 1_700_000_000_000
GROWTH_MB_MAX = 24


def record_messages(path: Path, count: int, first_open_ms: int = FIRST_OPEN) -> tuple[int, str]:
    """Writes messages of 1s candles; every second message is an update of an open candle. Returns (facts, their hash)."""
    digest, facts = hashlib.sha256(), 0
    with path.open("w") as file:
        for n in range(count):
            number, subject = n // 2, SUBJECTS[(n // 2) % len(SUBJECTS)]
            open_ms = first_open_ms + (number // len(SUBJECTS)) * 1_000
            price, closed = f"{20_000 + number % 977}.{number % 100:02d}000000", n % 2 == 1
            kline = {"t": open_ms, "T": open_ms + 999, "s": subject, "i": "1s", "f": n, "L": n, "o": price,
                     "c": price, "h": price, "l": price, "v": "1.50000000", "n": 1, "x": closed, "q": "0",
                     "V": "0", "Q": "0", "B": "0"}  # fmt: skip
            event = {"e": "kline", "E": open_ms + 1_000, "s": subject, "k": kline}
            file.write(json.dumps({"stream": f"{subject.lower()}@kline_1s", "data": event}) + "\n")
            if closed:
                facts += 1
                digest.update(f"{subject} {open_ms} {price}\n".encode())
    return facts, digest.hexdigest()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_recorded_messages_arrive_completely_in_order_and_in_bounded_memory(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "messages.jsonl"
    facts, expected = record_messages(path, count)
    server = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("recorded_server.py")), str(path), "20000"],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        garbage: list[str] = []
        source = BinanceSource(
            Hosts("http://127.0.0.1:1", url),
            lambda reason, _text: garbage.append(reason),
            Patience(wait_initial_seconds=0.01, wait_max_seconds=0.1, wait_jitter_seconds=0.01),
        )
        stream = source.stream([Subscription("binance", subject, "candle", "1s") for subject in SUBJECTS])
        assert isinstance(stream, AsyncGenerator)
        digest, last, done, early_mb, began = (
            hashlib.sha256(),
            dict.fromkeys(SUBJECTS, 0),
            0,
            0.0,
            time.monotonic(),
        )
        async with asyncio.timeout(60 + count / 500), aclosing(stream):
            while done < facts:
                record: FeedRecord = await anext(stream)
                if record.ts_event <= last[record.subject]:
                    continue  # sent again after a new connection: the log recognises it by its id
                last[record.subject] = record.ts_event
                digest.update(f"{record.subject} {record.ts_event} {record.values['close']}\n".encode())
                msgspec.json.encode(record)
                done += 1
                if done == facts // 5:
                    early_mb = resident_mb()
        seconds = time.monotonic() - began
    finally:
        server.kill()
        server.wait()
    print(f"{count} messages, {done} facts in {seconds:.1f} s: {count / seconds:.0f} messages/s", end="; ")
    print(f"resident {early_mb:.0f} MB after a fifth, {resident_mb():.0f} MB at the end")
    assert (done, digest.hexdigest()) == (facts, expected)
    assert source.health.connections == -(-count // 20_000)
    assert garbage == []
    assert resident_mb() - early_mb < GROWTH_MB_MAX
