"""How long a question about a random past takes, after a short history and after a long one.

    python tests/bench/as_of.py [ROUNDS_FEW ROUNDS_MANY MODELS QUESTIONS]

Folds rounds of one minute into stores, serves them by a process of its own over real sockets, and asks every route at
random moments, all distinct, one question at a time. Then the live leaderboard is asked alone, and again while eight
connections ask about distinct pasts as fast as they are answered. One JSON line per measurement. No broker takes part:
answers never read the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
from tests.bench.world import percentile
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder, fold_into

from coordinator.infra.kafka.embedded import free_ports
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_read_models

ROUTES = (
    "/reports/leaderboard",
    "/reports/leaderboard/history?periods=24",
    "/reports/models",
    "/reports/models/global?limit=1000",
    "/reports/models/params?limit=1000",
    "/reports/predictions?limit=100",
    "/reports/predictions?limit=1000",
    "/reports/feeds",
    "/reports/feeds/tail?limit=200",
    "/reports/snapshots?limit=100",
    "/reports/checkpoints?limit=20",
)
SERVER = """
import sys
from pathlib import Path
import uvicorn
from coordinator.api.access import Rules
from coordinator.api.app import create_app
from coordinator.api.as_of import let_live_answers_through
from coordinator.api.keys import KeyRing
from coordinator.infra.processes.forking import keep_from_the_collector
from coordinator.projections.views.all_views import open_read_models
from coordinator.projections.folding.projector import Projector
from coordinator.streams.settings import Settings
let_live_answers_through()
keep_from_the_collector()
settings = Settings(data_dir=Path(sys.argv[1]))
app = create_app(
    settings, Sender(Projector(settings, open_read_models(settings.data_dir, "bench", "btc-up")), None)
)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def say(event: str, **facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def make_history(folder: Path, rounds: int, models: int) -> None:
    """Stores of so many minutes; a snapshot per model each hour, a checkpoint every six."""
    began, log = time.process_time(), LogBuilder()
    read = open_read_models(folder, "bench", log.crunch_id)
    folder_of = Folder(read.all())
    log.terms()
    ids = [f"m{i:04d}" for i in range(models)]
    for model_id in ids:
        log.model(model_id)
    rng = random.Random(1)
    for minute in range(rounds):
        at = minute * MINUTE_MS
        log.record(START_MS + at)
        log.tick(START_MS + at + MINUTE_MS)
        log.round(at, {model_id: rng.random() for model_id in ids})
        log.inputs_until(at + MINUTE_MS)
        if minute % 60 == 59:
            log.scored_until(at + MINUTE_MS)
            for model_id in ids:
                log.snapshot(model_id, START_MS + at + MINUTE_MS - HOUR_MS, START_MS + at + MINUTE_MS)
        if minute % 360 == 359:
            log.checkpoint(at + MINUTE_MS - 6 * HOUR_MS, {ids[0]: 1_000_000_000})
        if minute % 20 == 19 or minute == rounds - 1:
            fold_into(folder_of, log, commit_every=50)
            for records in log.records.values():  # what is folded need not be kept
                records[:] = [None] * len(records)
    read.close()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    say(
        "history", rounds=rounds, models=models, predictions=rounds * models,
        cpu_seconds=round(time.process_time() - began, 1), megabytes=round(size / 1e6, 1),
    )  # fmt: skip


def ask(url: str, rounds: int, questions: int) -> None:
    """Latencies per route at random moments, one at a time."""
    rng = random.Random(2)
    with httpx.Client(base_url=url, timeout=60) as client:
        everything: list[float] = []
        for route in ROUTES:
            waits = []
            for _ in range(questions):
                at = START_MS + rng.randrange(rounds * MINUTE_MS)
                began = time.perf_counter()
                answer = client.get(f"{route}{'&' if '?' in route else '?'}as_of={at}")
                waits.append(1000 * (time.perf_counter() - began))
                assert answer.status_code == 200, answer.text
            everything += waits
            say("route", path=route, rounds=rounds, **figures(waits))
        say("all_routes", rounds=rounds, **figures(everything))


def figures(waits: list[float]) -> dict[str, float]:
    """p50 and p99 in ms."""
    return {"p50_ms": round(percentile(waits, 0.5), 1), "p99_ms": round(percentile(waits, 0.99), 1)}


async def live(port: int, seconds: float) -> dict[str, float]:
    """The live leaderboard, one question after the other, asked by a process of its own: ours is busy asking too."""
    asker = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("serving.py")), "127.0.0.1", str(port)),
        *("/reports/leaderboard", "1", str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asker.communicate()
    waits: dict[str, float] = json.loads(printed)
    return waits


async def flood(url: str, port: int, rounds: int, seconds: float) -> None:
    """The live leaderboard alone, and beside eight connections that ask about distinct pasts."""
    alone = await live(port, seconds)
    until = time.perf_counter() + seconds + 1
    waits: list[float] = []
    codes: dict[int, int] = {}

    async def asker(seed: int) -> None:
        rng = random.Random(seed)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while time.perf_counter() < until:
                began = time.perf_counter()
                at = START_MS + rng.randrange(rounds * MINUTE_MS)
                answer = await client.get(f"/reports/leaderboard?as_of={at}")
                codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
                waits.append(1000 * (time.perf_counter() - began))

    askers = [asyncio.create_task(asker(seed)) for seed in range(8)]
    await asyncio.sleep(0.5)
    beside = await live(port, seconds)
    await asyncio.gather(*askers)
    say(
        "flood", rounds=rounds, codes=codes, past=figures(waits), past_per_second=round(len(waits) / (seconds + 1)),
        live_alone={name: round(alone[name], 2) for name in ("p50_ms", "p99_ms")},
        live_beside={name: round(beside[name], 2) for name in ("p50_ms", "p99_ms")},
    )  # fmt: skip


def main(few: int, many: int, models: int, questions: int) -> None:
    """Both histories, one after the other."""
    for rounds in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            make_history(Path(folder), rounds, models)
            port = free_ports(1)[0]
            server = subprocess.Popen([sys.executable, "-c", SERVER, folder, str(port)])
            try:
                url = f"http://127.0.0.1:{port}"
                wait_for(url)
                ask(url, rounds, questions)
                asyncio.run(flood(url, port, rounds, 3.0))
                with open(f"/proc/{server.pid}/status") as status:
                    peak = next(line for line in status if line.startswith("VmHWM"))
                say("memory", rounds=rounds, peak_mb=int(peak.split()[1]) // 1024)
            finally:
                server.terminate()
                server.wait(10)


def wait_for(url: str) -> None:
    """Until it answers."""
    for _ in range(300):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/reports/models")
            return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main(*(int(argument) for argument in (sys.argv[1:] or ("1440", "10080", "100", "100"))))
