"""A whole node with the example models: rounds a second of a replay as fast as the models answer, and its size at rest.

Its processes are those below `coordinator up`, named as `node.json` names them; a model's process is `models`. CPU time
and PSS are the kernel's: PSS counts a page that several share once, divided among them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import httpx
import msgspec
import psutil

from bench.node import said
from bench.world import Child, World
from coordinator.cli.shared import NODE_FILE, NodeFile
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import free_ports

SETTLE_SECONDS = 10.0


class AtWork(msgspec.Struct, frozen=True):
    """Over `seconds` of a replay; CPU time in ms a round, of all and by process."""

    seconds: float
    rounds: int
    rounds_per_second: float
    cpu_ms_per_round: float
    cpu_ms: dict[str, float]


class AtRest(msgspec.Struct, frozen=True):
    """Megabytes (10**6 bytes) of PSS, of all and by process; 0 where the system does not tell them to this user."""

    pss_mb: float
    by_process: dict[str, float]


class Node:
    """One `coordinator up` on the generated market."""

    def __init__(self, world: World, name: str, *options: str) -> None:
        ensure_runtime()  # as in `node.start_a_node`
        (port,) = free_ports(1)
        self._folder = world.folder / name
        self._world = world
        self.up: Child = world.child(
            name,
            ["up", "--feed", "generated", "--port", str(port), "--data-dir", str(self._folder), *options],
            {"COLUMNS": "200", "TERM": "dumb"},
        )
        self.api = f"http://127.0.0.1:{port}"

    def processes(self) -> dict[int, str]:
        """Process id -> its name."""
        node = msgspec.json.decode((self._folder / NODE_FILE).read_bytes(), type=NodeFile)
        names = {pid: name for name, pid in node.pids.items()}
        names_by_pid = {self.up.pid: "up"}
        for child in psutil.Process(self.up.pid).children(recursive=True):
            above = [process.pid for process in child.parents() if process.pid in names]
            names_by_pid[child.pid] = names.get(child.pid) or (names[above[0]] if above else "up")
            if names_by_pid[child.pid] == "up" and child.pid != self.up.pid:
                names_by_pid[child.pid] = "what workers are forked from"
        return names_by_pid

    def rounds(self) -> int:
        """Rounds begun so far, as the API tells."""
        return int(
            httpx.get(f"{self.api}/reports/summary", timeout=30)
            .raise_for_status()
            .json()["inputs"]["received"]
        )

    def end(self) -> None:
        """Ctrl-C."""
        self._world.stop(self.up)


def at_work(world: World, seconds: float) -> AtWork:
    """A replay of minutes: the next input follows when the models have answered."""
    node = Node(world, "node-at-work")
    try:
        said(node.up, r"first score, ([\d.]+) s after")
        time.sleep(SETTLE_SECONDS if seconds > SETTLE_SECONDS else 0)
        rounds, used, began = node.rounds(), _cpu_seconds(node.processes()), time.monotonic()
        time.sleep(seconds)
        rounds = node.rounds() - rounds
        lasted = time.monotonic() - began
        spent = {name: now - used.get(name, 0.0) for name, now in _cpu_seconds(node.processes()).items()}
    finally:
        node.end()
    each = {
        name: round(1000 * seconds_used / max(1, rounds), 2) for name, seconds_used in sorted(spent.items())
    }
    return AtWork(lasted, rounds, rounds / lasted, sum(each.values()), each)


def at_rest(world: World) -> AtRest:
    """The replay goes at life's own speed: a round a minute."""
    node = Node(world, "node-at-rest", "--speed", "1")
    try:
        said(node.up, r"whole node listens, ([\d.]+) s after")
        time.sleep(SETTLE_SECONDS)
        sizes: dict[str, float] = defaultdict(float)
        for pid, name in node.processes().items():
            sizes[name] += pss_mb(pid)
    finally:
        node.end()
    return AtRest(sum(sizes.values()), {name: round(size, 1) for name, size in sorted(sizes.items())})


def _cpu_seconds(processes: dict[int, str]) -> dict[str, float]:
    used: dict[str, float] = defaultdict(float)
    for pid, name in processes.items():
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[name] += times.user + times.system
    return used


def pss_mb(pid: int) -> float:
    """Megabytes of PSS; 0 for a process that has ended or is not to be looked at."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
