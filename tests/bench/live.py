"""What 500 live listeners cost the workers: the same log scored with nobody listening, and with all of them.

The rate is that of predictions from the log through the score worker into the report worker's board, both real and
catching up as fast as they can, which is more than any crunch asks for. Listeners are a process of their own:
`live.py HOST PORT LISTENERS` keeps that many streams open, reads them, and tells what came when it is ended. On a machine
with few cores that client takes part of them too, so its share is told.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import msgspec

from bench import node, pipeline
from bench.synthetic import SyntheticLog
from bench.world import Child, World, cpu_seconds
from coordinator.streams.settings import Settings

TIMES = 2
"""Other work on the machine slows a run by more than listeners do."""


class Found(msgspec.Struct, frozen=True):
    """Rates in predictions a second, without and with the listeners. Cores are those used meanwhile."""

    listeners: int
    alone_per_second: float
    listened_per_second: float
    megabytes_per_second: float
    messages_per_listener: float
    cut_short: int
    report_cores_alone: float
    report_cores_listened: float
    client_cores: float


def measure(world: World, rounds: int, listeners: int, models: int = 100, times: int = TIMES) -> Found:
    """Both runs by turns, each on a log and with processes of its own; the fastest of each kind counts."""
    none, many = [], []
    for n in range(times):
        none.append(_run(world, f"bench-live-none-{n}", rounds, 0, models))
        many.append(_run(world, f"bench-live-many-{n}", rounds, listeners, models))
    alone, alone_cores, _ = max(none, key=lambda run: run[0])
    listened, cores, told = max(many, key=lambda run: run[0])
    return Found(
        listeners, alone, listened, told["bytes"] / told["seconds"] / 1e6, told["messages"] / max(1, listeners),
        told["ended"], alone_cores, cores, told["cores"],
    )  # fmt: skip


def _run(
    world: World, crunch_id: str, rounds: int, listeners: int, models: int
) -> tuple[float, float, dict[str, Any]]:
    settings = world.settings(crunch_id)
    log = SyntheticLog(settings, models)
    asyncio.run(pipeline.fill(settings, chain([log.head()], log.minutes(0, rounds)), create=True))
    report, settings = node.start_report(world, settings)
    client = None
    if listeners:
        client = world.script("live", settings, settings.api_host, str(settings.api_port), str(listeners))
        client.wait_for("listening")
    score = world.worker("score", settings)
    rate, cores = _rate(settings, report, score, models * (rounds - 1), models)
    told = {"bytes": 0, "messages": 0, "ended": 0, "seconds": 1.0, "cores": 0.0}
    if client is not None:
        client.process.send_signal(signal.SIGTERM)
        told = client.wait_for("measured")
    world.stop(score, report)
    return rate, cores, told


def _rate(settings: Settings, report: Child, score: Child, wanted: int, models: int) -> tuple[float, float]:
    """Predictions a second from the look before the first score in the board to the last, and the report worker's
    cores.
    """
    url = f"http://{settings.api_host}:{settings.api_port}/healthz"
    deadline = time.monotonic() + pipeline.SCORE_SECONDS_MAX
    first: tuple[float, int, float] | None = None
    before = (0.0, 0, 0.0)
    head = None
    with httpx.Client(timeout=30) as client:
        while time.monotonic() < deadline:
            score.check()
            report.check()
            at = client.get(url).json()["positions"]["scores"]
            now = time.monotonic()
            if head is None:
                head = at
            if first is None and at > head + 20:
                first = before  # a short log may be in the board whole by the time that its first score is seen there
            before = (now, at, cpu_seconds(report.pid))
            if first is not None and (at - head) * models >= wanted:
                took = now - first[0]
                return (at - first[1]) * models / took, (cpu_seconds(report.pid) - first[2]) / took
            time.sleep(0.05)
    raise RuntimeError(
        f"not scored after {pipeline.SCORE_SECONDS_MAX:g} s; the score worker said: {score.tail()}"
    )


class Listener(asyncio.Protocol):
    """One open stream; counts what comes."""

    def __init__(self, request: bytes) -> None:
        self.bytes = self.messages = 0
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self.messages += data.count(b"event: beat")
        if not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


async def listen(host: str, port: int, count: int) -> None:
    """Open the streams, say so, and say what came at SIGTERM."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    request = f"GET /reports/live HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    listeners = [
        (await loop.create_connection(lambda: Listener(request), host, port))[1] for _ in range(count)
    ]
    await asyncio.gather(*(listener.begun for listener in listeners))
    sys.stdout.write(json.dumps({"event": "listening"}) + "\n")
    sys.stdout.flush()
    began, used = time.perf_counter(), time.process_time()
    await over.wait()
    seconds = time.perf_counter() - began
    figures = {
        "event": "measured",
        "bytes": sum(listener.bytes for listener in listeners),
        "messages": sum(listener.messages for listener in listeners),
        "ended": sum(listener.ended for listener in listeners),
        "seconds": seconds,
        "cores": (time.process_time() - used) / seconds,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
