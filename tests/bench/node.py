"""A whole node: the memory of its processes over a long log, and how soon it stands after `coordinator up`."""

from __future__ import annotations

import re
import signal
import time

import httpx
import msgspec

from bench.pipeline import Scored
from bench.world import Child, Memory, World, memory_of
from coordinator.cli.up_plan import example_models
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import free_ports
from coordinator.streams.settings import Settings

FOLD_SECONDS_MAX = 300.0
MORE_MINUTES = 30
UP_SECONDS_MAX = 300.0


def start_report(world: World, settings: Settings) -> tuple[Child, Settings]:
    """A report worker that has folded everything, and the settings that say its port."""
    settings = settings.changed(api_port=free_ports(1)[0])
    report = world.worker("report", settings)
    report.wait_for("projector_started")
    deadline = time.monotonic() + FOLD_SECONDS_MAX
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.api_port}", timeout=30) as api:
        while any(api.get("/healthz").json()["lag"].values()):
            report.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the report worker has not folded the log in {FOLD_SECONDS_MAX:g} s")
            time.sleep(0.2)
    report.wait_quiet()
    return report, settings


def memory_of_node(world: World, scored: Scored) -> dict[str, Memory]:
    """Process -> memory, after all five workers have resumed on the scored log and gone on with it for a while.

    The models are the few example models over gRPC (the roster also has the log's hundred, who are absent). The
    score worker's figure is the higher one of this life and of the one that scored the log.
    """
    log, settings = scored.log, scored.settings
    candles = log.candle_file(settings.data_dir / "candles.csv", scored.rounds + MORE_MINUTES)
    (port,) = free_ports(1)
    settings = settings.changed(feed_candles_file=str(candles), model_runner_node_port=port)
    models = [*("--models", str(example_models())), *("--port", str(port)), *("--crunch", settings.crunch_id)]
    host = world.child(
        "models",
        [*models, "--log-dir", str(settings.data_dir / "models")],
        {},
        module="coordinator.infra.models.host",
    )
    report, settings = start_report(world, settings)
    workers = {name: world.worker(name, settings) for name in ("checkpoint", "score", "predict", "feed")}
    try:
        workers["feed"].wait_for("replay_finished", seconds=FOLD_SECONDS_MAX)
        workers["report"] = report
        for child in workers.values():
            child.wait_quiet()
        sizes = {name: memory_of(child.pid) for name, child in workers.items()}
    finally:
        world.stop(*workers.values(), report, host)
    before, now = scored.score_worker, sizes["score"]
    sizes["score"] = Memory(max(before.now_mb, now.now_mb), max(before.peak_mb, now.peak_mb))
    if world.broker.pid is not None:
        sizes["broker"] = memory_of(world.broker.pid)
    return sizes


class Started(msgspec.Struct, frozen=True):
    """Seconds after the start of `coordinator up`, in its own words."""

    node_listens_seconds: float
    first_score_seconds: float


def start_a_node(world: World) -> Started:
    """`coordinator up` in a fresh directory, on the generated market, with its own broker; ended with SIGINT."""
    ensure_runtime()  # set-up made it, and other environments of this machine may have taken its place since
    (port,) = free_ports(1)
    up = world.child(
        "up",
        [
            *("up", "--feed", "generated", "--port", str(port)),
            *("--data-dir", str(world.folder / "up-node")),
        ],
        {"COLUMNS": "200", "TERM": "dumb"},
    )
    try:
        listens = said(up, r"whole node listens, ([\d.]+) s after")
        score = said(up, r"first score, ([\d.]+) s after")
    finally:
        up.stop(signal.SIGINT)
    return Started(listens, score)


def said(up: Child, pattern: str) -> float:
    """The number in what `up` has said, once it has. Raises RuntimeError when it does not come."""
    deadline = time.monotonic() + UP_SECONDS_MAX
    while (match := re.search(pattern, up.log_file.read_text(errors="replace"))) is None:
        up.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"`up` did not say {pattern!r} in {UP_SECONDS_MAX:g} s; it said: {up.tail()}")
        time.sleep(0.1)
    return float(match[1])
