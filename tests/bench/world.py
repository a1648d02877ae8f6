"""What every row needs: a broker, child processes whose words are read, memory and load as the kernel tells them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

import forked
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.streams.settings import Settings, environment
from forked import ForkedProcess

COORDINATOR = "coordinator.cli.main"
BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parents[1]
START_SECONDS_MAX = 300.0
STOP_SECONDS_MAX = 10.0
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SETTINGS = {name.upper() for name in Settings.model_fields}


class Memory(msgspec.Struct, frozen=True):
    """Resident megabytes (10**6 bytes) of one process: now, and at its highest."""

    now_mb: float
    peak_mb: float


def memory_of(pid: int) -> Memory:
    """Memory as /proc tells it."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Memory(*(int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def load_average() -> float:
    """Of the last minute: above the number of cores, absolute figures mean little."""
    return os.getloadavg()[0]


class Child:
    """A process of ours, its output in a file that is read for events (JSON lines)."""

    def __init__(
        self, name: str, log_dir: Path, begin: Callable[[IO[bytes]], subprocess.Popen[bytes] | ForkedProcess]
    ) -> None:
        self.name = name
        self.log_file = log_dir / f"{name}-{time.monotonic_ns()}.log"
        with self.log_file.open("wb") as out:
            self.process = begin(out)
        self._read = 0
        self._rest = b""
        self._events: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def events(self, name: str) -> list[dict[str, Any]]:
        """Every line so far whose `event` is `name`."""
        with self.log_file.open("rb") as out:
            out.seek(self._read)
            new = out.read()
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._events += [json.loads(line) for line in lines if line.startswith(b"{")]
        return [event for event in self._events if event.get("event") == name]

    def wait_for(self, name: str, count: int = 1, seconds: float = START_SECONDS_MAX) -> dict[str, Any]:
        """The `count`-th event of this name. Raises RuntimeError with its last words when it does not come."""
        deadline = time.monotonic() + seconds
        while len(events := self.events(name)) < count:
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no {name} in {seconds:g} s; it said: {self.tail()}")
            time.sleep(0.02)
        return events[count - 1]

    def wait_quiet(self, share: float = 0.1, seconds: float = START_SECONDS_MAX) -> None:
        """Wait until it uses less than `share` of a core over half a second."""
        deadline = time.monotonic() + seconds
        used = cpu_seconds(self.pid)
        while time.monotonic() < deadline:
            time.sleep(0.5)
            used, before = cpu_seconds(self.pid), used
            if used - before < share * 0.5:
                return
        raise RuntimeError(f"{self.name} is still busy after {seconds:g} s; it said: {self.tail()}")

    def check(self) -> None:
        """Raises RuntimeError when it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}; it said: {self.tail()}")

    def tail(self) -> str:
        """Its last words."""
        return self.log_file.read_text(errors="replace")[-2000:]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end, and end it when it does not."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class World:
    """One broker and one folder for a run of the bench; every child is ended with it.

    `forking`: children are forks of one process that has imported (`tests/forked.py`). That saves most of their CPU time,
    and memory cannot be told of them.
    """

    def __init__(self, folder: Path, *, forking: bool = False) -> None:
        self.folder = folder
        self._forking = forking
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self._children: list[Child] = []
        self._broker: EmbeddedBroker | None = None

    @property
    def broker(self) -> EmbeddedBroker:
        """The broker, started when it is first asked for."""
        if self._broker is None:
            ensure_runtime()
            self._broker = EmbeddedBroker(self.folder / "kafka")
            self._broker.start()
            self._broker.wait_ready(START_SECONDS_MAX)
        return self._broker

    def settings(self, crunch_id: str, **fields: Any) -> Settings:
        """Settings of one crunch; the default contract, a feed from a file."""
        defaults = {
            "crunch_id": crunch_id,
            "kafka_bootstrap": self.broker.bootstrap,
            "data_dir": self.folder / crunch_id,
            "feed_source": "candles",
            "checkpoint_interval_seconds": 21_600,
        }
        return Settings(**(defaults | fields))

    def worker(self, name: str, settings: Settings) -> Child:
        """A real worker, as a cluster runs it."""
        return self.child(name, ["worker", name], environment(settings))

    def script(self, name: str, settings: Settings, *arguments: str) -> Child:
        """A script of this folder in a process of its own."""
        return self.child(name, arguments, environment(settings), script=BENCH / f"{name}.py")

    def child(
        self,
        name: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        *,
        script: Path | None = None,
        module: str = COORDINATOR,
    ) -> Child:
        """`coordinator ARGUMENTS`, or another module or a script with these, with no settings but these."""
        environ = {key: value for key, value in os.environ.items() if key not in _SETTINGS} | dict(variables)
        program = ["-Iu", str(script)] if script else ["-Ium", module]

        def begin(out: IO[bytes]) -> subprocess.Popen[bytes] | ForkedProcess:
            if self._forking and module == COORDINATOR:
                return forked.start(arguments, env=environ, out=out, script=script, cwd=self.logs)
            return subprocess.Popen(
                [sys.executable, *program, *arguments], env=environ, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, cwd=self.logs,
            )  # fmt: skip

        child = Child(name, self.logs, begin)
        self._children.append(child)
        return child

    def stop(self, *children: Child) -> None:
        """End these children, all at a time."""
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        for child in children:
            child.stop()

    def end_broker(self) -> None:
        """End the broker. One that is asked for later is another, at another address."""
        if self._broker is not None:
            self._broker.stop()
            self._broker = None

    def close(self) -> None:
        """End everything."""
        self.stop(*self._children)
        self.end_broker()


@contextmanager
def a_world(folder: Path, *, forking: bool = False) -> Iterator[World]:
    """A world that is ended whatever happens."""
    world = World(folder, forking=forking)
    try:
        yield world
    finally:
        world.close()


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1)]
