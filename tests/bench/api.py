"""What questions cost: the board of a hundred and of a thousand models, and pages of predictions over short and long histories.

    .venv/bin/python -I tests/bench/api.py [--quick]

The real application and server in a process of their own, over read models folded from a made log, without a broker. The
load is `serving.py`'s, from this process. "Short" and "long" histories are asked the same way, so that their ratio says
whether the cost grows.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import uvicorn  # noqa: E402
from tests.bench.serving import load  # noqa: E402
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder, fold_into  # noqa: E402
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: E402

from coordinator.api.app import create_app  # noqa: E402
from coordinator.api.commands import Sender  # noqa: E402
from coordinator.api.times import zulu  # noqa: E402
from coordinator.infra.kafka.embedded import free_ports  # noqa: E402
from coordinator.infra.processes.forking import keep_from_the_collector  # noqa: E402
from coordinator.infra.processes.sockets import listen  # noqa: E402
from coordinator.projections.folding.projector import Projector  # noqa: E402
from coordinator.projections.views.all_views import ReadModels, open_read_models  # noqa: E402
from coordinator.streams.settings import Settings  # noqa: E402

ROUNDS_PER_FOLD = 100
CONNECTIONS = 8


def fold_history(folder: Path, models: int, rounds: int) -> tuple[Projector, ReadModels]:
    """`rounds` one-minute rounds of `models` models, folded; the log is let go as it is folded."""
    settings = Settings(data_dir=folder)
    log = LogBuilder()
    read = open_read_models(folder, "cluster", log.crunch_id)
    projector = Projector(settings, read)
    log.terms()
    names = [f"m{index:05}" for index in range(models)]
    for name in names:
        log.model(name)
    for number in range(rounds):
        log.round(
            number * MINUTE_MS,
            {name: ((index * 7919 + number) % 1_000) / 1_000 for index, name in enumerate(names)},
        )
        at = (number + 2) * MINUTE_MS
        log.inputs_until(at)
        if at % HOUR_MS == 0:
            log.scored_until(at)
        if number % ROUNDS_PER_FOLD == ROUNDS_PER_FOLD - 1 or number == rounds - 1:
            fold_into(projector.folder, log, commit_every=500)
            for records in log.records.values():
                records[:] = [None] * len(records)
    projector._started = True
    return projector, read


def serve(folder: Path, models: int, rounds: int, port: int, ready: object) -> None:
    """The child: fold, then serve until it is ended."""
    keep_from_the_collector()
    projector, _ = fold_history(folder, models, rounds)
    app = create_app(projector.settings, Sender(projector, None))  # type: ignore[arg-type]
    bound = listen("127.0.0.1", port, "the port")
    config = uvicorn.Config(app, http=HttpToolsProtocol, log_config=None, access_log=False, lifespan="off")
    ready.set()  # type: ignore[attr-defined]
    asyncio.run(uvicorn.Server(config).serve([bound]))


@contextmanager
def served(models: int, rounds: int) -> Iterator[int]:
    """The port of a server over such a history."""
    (port,) = free_ports(1)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-api-") as folder:
        ready = context.Event()
        child = context.Process(target=serve, args=(Path(folder), models, rounds, port, ready))
        child.start()
        began = time.monotonic()
        while not ready.wait(1):
            if not child.is_alive():
                raise RuntimeError("the server ended before it served")
        print(
            f"  ({models:,} models, {models * rounds:,} predictions folded in {time.monotonic() - began:.0f} s)"
        )
        time.sleep(0.5)
        try:
            yield port
        finally:
            child.terminate()
            child.join(10)


def ask(port: int, path: str, connections: int, seconds: float, what: str, aim: str) -> float:
    """Say and give the p99 in ms."""
    figures = asyncio.run(load("127.0.0.1", port, path, connections, seconds))
    print(
        f"{what}: {figures['requests_per_second']:,.0f}/s, p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, "
        f"{figures['body_bytes'] / 1024:,.0f} KiB (aim {aim})"
    )
    return figures["p99_ms"]


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    seconds = 0.5 if quick else 8.0
    short, long = (5, 20) if quick else (100, 10_000)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with served(1_000, 5) as port:
        ask(
            port,
            "/reports/leaderboard",
            CONNECTIONS,
            seconds,
            "board of 1,000 models, 8 connections",
            "p99 50 ms",
        )
    p99 = []
    for rounds in (short, long):
        with served(100, rounds) as port:
            board = f"board of 100 models, 8 connections, {100 * rounds:,} predictions"
            ask(port, "/reports/leaderboard", CONNECTIONS, seconds, board, "2,000/s, p99 20 ms")
            middle = zulu(START_MS + rounds // 2 * MINUTE_MS)
            page = f"/reports/predictions?limit=1000&end={middle}"
            title = f"page of 1,000 predictions in the middle of {100 * rounds:,}"
            p99.append(ask(port, page, 1, seconds, title, "p99 100 ms"))
    print(f"p99 over the long history against the short: {p99[1] / p99[0]:.2f}")


if __name__ == "__main__":
    main()
