"""Recorded predictions -> scored -> in the leaderboard, and the two peers of that path.

Two phases over one log. Catching up: the predictions stand there before the score worker starts, which reads them
by itself. Delivered: the rest is appended while it runs, never more than AHEAD_ROUNDS beyond what is folded, so that
every input comes through Faust and the worker always has something to do. The rate is over
the scores between the first and the last commit of the leaderboard: no start of a process is in it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from bench.synthetic import SUBJECT, Records, SyntheticLog, write
from bench.world import ROOT, START_SECONDS_MAX, Child, Memory, World, memory_of
from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.log import ids
from coordinator.streams.settings import Settings

QUIX = "quixstreams==3.28.1"
OF_OURS = tuple(f"{name}=={importlib.metadata.version(name)}" for name in ("base58", "msgspec"))
"""What the peer needs beside Quix Streams and its pydantic: libraries of our scoring function, in our versions."""
QUIX_FOLDER = ROOT / "build" / "bench-quix"
SCORE_SECONDS_MAX = 900.0
AHEAD_ROUNDS = 200


class Scored(msgspec.Struct, frozen=True):
    """A log whose predictions are all scored, and how fast that went."""

    settings: Settings
    log: SyntheticLog
    rounds: int
    catch_up_per_second: float
    delivered_per_second: float
    score_worker: Memory
    filled_per_second: float


class Sizes(msgspec.Struct, frozen=True):
    """Rounds before the worker starts, and rounds while it runs; models in each."""

    standing: int
    delivered: int
    models: int = 100


def score_all(world: World, sizes: Sizes) -> Scored:
    """Make the log, score it, and measure both phases."""
    settings = world.settings("bench-scored")
    log = SyntheticLog(settings, sizes.models)
    rounds = sizes.standing + sizes.delivered
    filling = time.monotonic()
    asyncio.run(fill(settings, chain([log.head()], log.minutes(0, sizes.standing)), create=True))
    filled = sizes.models * sizes.standing / (time.monotonic() - filling)
    projector = world.script("projector", settings)
    score = world.worker("score", settings)
    projector.wait_for("projector_starts")
    # The last round's truth is known a minute later: its scores wait for the next phase.
    catch_up = _rate(projector, score, 0, sizes.models * (sizes.standing - 1))
    score.wait_for("stage_resumed", 2)
    score.wait_quiet()  # Faust delivers once more what the worker has read by itself: it is skipped
    rest = list(
        log.minutes(sizes.standing, rounds)
    )  # encoded before, so that only sending is beside the work
    asyncio.run(_deliver(settings, rest, projector, sizes))
    delivered = _rate(projector, score, sizes.models * (sizes.standing - 1), sizes.models * (rounds - 1))
    score.wait_quiet()
    memory = memory_of(score.pid)
    world.stop(score, projector)
    return Scored(settings, log, rounds, catch_up, delivered, memory, filled)


async def fill(settings: Settings, batches: Any, *, create: bool = False) -> None:
    """Append these records; with `create` to new topics."""
    if create:
        await create_topics(settings.kafka_bootstrap, settings.crunch_id)
    producer = make_producer(settings.kafka_bootstrap)
    await producer.start()
    try:
        records: chain[Records] | list[Records] = batches
        await write(producer, settings.crunch_id, records)
    finally:
        await producer.stop()


async def _deliver(settings: Settings, batches: list[Records], projector: Child, sizes: Sizes) -> None:
    """Append minute by minute, kept at most AHEAD_ROUNDS ahead of the board. Gives up waiting with `_rate`'s bound."""
    producer = make_producer(settings.kafka_bootstrap)
    await producer.start()
    deadline = time.monotonic() + SCORE_SECONDS_MAX
    try:
        for start in range(0, len(batches), AHEAD_ROUNDS // 4):
            sent = sizes.standing + start
            while sent - _folded(projector) // sizes.models > AHEAD_ROUNDS and time.monotonic() < deadline:
                projector.check()
                await asyncio.sleep(0.01)
            await write(producer, settings.crunch_id, batches[start : start + AHEAD_ROUNDS // 4])
    finally:
        await producer.stop()


def _folded(projector: Child) -> int:
    marks = projector.events("folded")
    return int(marks[-1]["scores"]) if marks else 0


def _rate(projector: Child, score: Child, before: int, until: int) -> float:
    """Scores per second between the first commit beyond `before` and the one that reaches `until`."""
    deadline = time.monotonic() + SCORE_SECONDS_MAX
    while True:
        marks = [mark for mark in projector.events("folded") if mark["scores"] > before]
        if marks and marks[-1]["scores"] >= until:
            break
        score.check()
        projector.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(marks)} commits, not {until} scores, after {SCORE_SECONDS_MAX:g} s")
        time.sleep(0.05)
    first, last = marks[0], marks[-1]
    seconds = last["mono"] - first["mono"]
    return float((last["scores"] - first["scores"]) / seconds) if seconds > 0 else 0.0


def bare_loop(world: World, scored: Scored) -> float:
    """Predictions a second of the bare loop over the same records."""
    child = world.script("bare_loop", scored.settings)
    measured = child.wait_for("measured", seconds=SCORE_SECONDS_MAX)
    child.process.wait(10)
    return float(measured["predictions"] / measured["seconds"])


def quix(world: World, scored: Scored, *, install: bool) -> tuple[float | None, str]:
    """(predictions a second of Quix Streams, "") or (None, why it did not run)."""
    python = QUIX_FOLDER / "bin" / "python"
    if why := _quix_missing(python, install=install):
        return None, why
    truths = {}
    for n in range(scored.rounds - 1):
        entry, resolved = scored.log.price(n), scored.log.price(n + 1)
        truths[ids.input_id(SUBJECT, scored.log.point(n))] = (resolved - entry) / entry
    file = world.folder / "truths.json"
    file.write_text(json.dumps(truths))
    records = 1 + 2 * scored.rounds
    topic = f"{scored.settings.crunch_id}.predictions"
    done = subprocess.run(
        [str(python), "-I", str(Path(__file__).parent / "quix_peer.py"), scored.settings.kafka_bootstrap, topic,
         str(records), str(file)],
        capture_output=True, text=True, timeout=SCORE_SECONDS_MAX, check=False, cwd=world.folder,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"event": "measured"')]
    if done.returncode != 0 or not lines:
        return None, f"it ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
    measured = json.loads(lines[-1])
    return measured["predictions"] / measured["seconds"], ""


def _quix_missing(python: Path, *, install: bool) -> str:
    """Why Quix Streams cannot run; empty when it can. Installs it on the first use."""
    ready, wanted = QUIX_FOLDER / ".ready", " ".join((QUIX, *OF_OURS))
    if ready.is_file() and ready.read_text() == wanted:
        return ""
    if not install:
        return f"{QUIX} is not installed, and a quick run installs nothing"
    try:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(QUIX_FOLDER)],
            [str(python), "-m", "pip", "install", "--quiet", QUIX, *OF_OURS],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=4 * START_SECONDS_MAX)
    except subprocess.CalledProcessError as error:
        return f"{QUIX} does not install: {error.stderr.strip().splitlines()[-1:]}"
    except subprocess.TimeoutExpired:
        return f"{QUIX} took too long to install"
    ready.write_text(wanted)
    return ""
