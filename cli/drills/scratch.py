"""A scratch node: a whole `coordinator up` in a temporary folder, with a market and models of its own.

Real Kafka, real workers, real models. Its contract asks every five seconds, so that a drill has scores soon.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from coordinator.cli.drills.market import SUBJECTS, Market
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.security import VARIABLES as KAFKA_VARIABLES
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

CRUNCH = "drill"
START_SECONDS_MAX, STOP_SECONDS_MAX, COMMAND_SECONDS_MAX = 300.0, 90.0, 180.0
ENDED_SECONDS_MAX = 60.0
"""A node that cannot continue must end within this time, and say why."""
COMMAND = [sys.executable, "-Im", "coordinator.cli.main"]
POLL_SECONDS, KILL_SECONDS = 0.25, 0.2
BEHIND_SECONDS_MAX, LAG_RECORDS_MAX = 6.0, 100
OURS = frozenset({*(name.upper() for name in Settings.model_fields), *KAFKA_VARIABLES, "MODELS_DIR"})
"""Variables of the caller's own node, which the scratch node must not take over."""

CONTRACT = '''"""The challenge of a drill: the default one, asked every five seconds."""

from coordinator.streams.contract import CrunchContract, PredictionScope, ScheduledPrediction

CONTRACT = CrunchContract(
    crunch_pubkey="9j9yvs73fjNhU32TQBRTqiirzn2KGQDM6H9BgPa4U8r8",
    scheduled_predictions=[
        ScheduledPrediction(
            scope_key="5s", scope=PredictionScope(horizon_seconds=5, step_seconds=1), interval_seconds=5
        )
    ],
    input_records=5,
    deadline_seconds=2,
    grace_seconds=1,
    gap_wait_seconds=5,
)
'''
MODEL = '''"""A model of a drill."""

from coordinator.scaffolds.challenge.tracker import TrackerBase


class Model(TrackerBase):
    """Has one opinion."""

    def predict(self, subject, horizon_seconds, step_seconds):
        """Always the same."""
        return {{"value": {value}}}
'''
Found = TypeVar("Found")


class ScratchNode:
    """Made, started and thrown away by a drill. `settings` are variables of the environment over its own."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.data_dir = folder / "node"
        self.data_dir.mkdir(exist_ok=True)
        self.market = Market(folder / "market")
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / "up.log"
        self.stopped_by_us = True
        """Whether it is not running because the drill has stopped it."""
        self.program = COMMAND
        """What runs `up`."""
        self.left_over: list[Callable[[], None]] = []
        """What has to be undone when the drill is over."""
        self.kafka_read_at = ""
        """Where a drill itself reads its Kafka, if not where the node does."""
        self.notes: dict[str, Any] = {}
        """What one step of a drill leaves for the next."""
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._launching = threading.Lock()
        self._thrown_away = False
        self._killing = threading.Event()
        self.environ = {name: text for name, text in os.environ.items() if name not in OURS}
        self.environ |= {
            "CRUNCH_ID": CRUNCH,
            "CONTRACT": "drill_contract:CONTRACT",
            "MODELS_DIR": str(folder / "models"),
            "FEED_SOURCE": "file",
            "FEED_SUBJECTS": ",".join(SUBJECTS),
            "FEED_KIND": "candle",
            "FEED_GRANULARITY": "1s",
            "FEED_OPT_PATH": str(folder / "market" / "{subject}.jsonl"),
            "FEED_STALL_ALERT_SECONDS": "20",
            "SNAPSHOT_INTERVAL_SECONDS": "10",
            "CHECKPOINT_INTERVAL_SECONDS": "30",
            "MONITOR_SECONDS": "1",
            "API_SETTLE_WITHOUT_KEY": "true",
            **settings,
        }
        self.contract_file.write_text(CONTRACT, encoding="utf-8")
        for name, value in (("rising", "0.3"), ("falling", "-0.2")):
            self.write_model(name, MODEL.format(value=value))

    @property
    def contract_file(self) -> Path:
        """The text of its contract."""
        return self.folder / "drill_contract.py"

    def write_model(self, name: str, text: str) -> None:
        """Hand in a model; the model host reads it when it starts."""
        folder = self.folder / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(text, encoding="utf-8")

    # --- its life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it scores. Raises WorldError with its last lines."""
        self.go_on()
        if not self.market.is_running:
            # Not before: what comes while a busy machine starts the node has to be caught up.
            self.market.start()
        self.until(lambda: self.scored() > 0, "it scores", START_SECONDS_MAX)

    def go_on(self) -> None:
        """Start it again, and wait until it answers: before, a command would take the stopped node's directory."""
        self.launch()
        self.until(lambda: self.alerts() is not None, "it answers", START_SECONDS_MAX)

    def launch(self) -> None:
        """Start it, and wait for nothing. Raises WorldError once it was thrown away."""
        with self._launching:
            if self._thrown_away:
                raise WorldError("the drill was stopped")
            self._launch()

    def _launch(self) -> None:
        command = ["up", "--data-dir", self.data_dir, "--port", self.port]
        with self.output.open("ab") as out:
            self._process = subprocess.Popen(
                [*self.program, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environ,
                cwd=self.folder,
            )
        self._starting = True
        self.stopped_by_us = False

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self.stopped_by_us = True
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill it with SIGKILL; the kernel ends its processes with it."""
        self.stopped_by_us = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def throw_away(self) -> None:
        """End all, and undo what a drill has left."""
        with self._launching:
            self._thrown_away = True
        for undo in reversed(self.left_over):
            undo()
        self.stop()
        if self.market.is_running:
            self.market.stop()

    def until_ended(self, says: str) -> None:
        """Wait until it has ended by itself. Raises WorldError if it does not, or its last lines lack `says`."""
        self.stopped_by_us = False
        deadline = time.monotonic() + ENDED_SECONDS_MAX
        while self.exit_code is None:
            if time.monotonic() > deadline:
                raise WorldError(f"the node did not end within {ENDED_SECONDS_MAX:g} s: {self.last_lines()}")
            time.sleep(POLL_SECONDS)
        if says not in self.last_lines():
            raise WorldError(f"the node ended and does not say {says!r}: {self.last_lines()}")

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last run; None while it runs."""
        return None if self._process is None else self._process.poll()

    def last_lines(self) -> str:
        """What it said last."""
        return " | ".join(self.output.read_text(errors="replace").splitlines()[-8:])

    def pid(self, name: str) -> int:
        """One of its processes: kafka, models, feed, predict, score, checkpoint, report."""
        pids: dict[str, int] = json.loads((self.data_dir / "node.json").read_text())["pids"]
        return pids[name]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of its processes, if it lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid(name), number)

    def kill_in_a_loop(self, name: str) -> None:
        """Kill a process again whenever it comes up, until `let_live`."""
        ended = self._killing = threading.Event()

        def kill() -> None:
            while not ended.wait(KILL_SECONDS):
                self.signal(name, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True, name="killer").start()
        self.left_over.append(self.let_live)

    def let_live(self) -> None:
        """Kill nothing more."""
        self._killing.set()

    # --- what it says --------------------------------------------------------------------------------

    def command(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`coordinator ARGUMENTS --data-dir ..`. Raises WorldError if it fails, unless `check` is False."""
        finished = self.run(*arguments, "--data-dir", self.data_dir)
        if check and finished.returncode:
            text = " ".join(map(str, arguments))
            raise WorldError(
                f"coordinator {text} ended with {finished.returncode}: {finished.stderr.strip()}"
            )
        return finished

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`coordinator ARGUMENTS` with the node's environment."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            env=self.environ,
            cwd=self.folder,
            check=False,
        )

    def ask(self, path: str) -> Any:
        """The JSON of a route; None if nobody answers."""
        try:
            with urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310 - our own address
                return json.load(answer)
        except HTTPError as error:
            return json.load(error)
        except (URLError, OSError, ValueError):
            return None

    @property
    def is_expected_up(self) -> bool:
        """Whether it ought to answer: it was started, and has answered since (`alerts` asks) or has ended."""
        return not self.stopped_by_us and not (self._starting and self.exit_code is None)

    def alerts(self) -> list[dict[str, str]] | None:
        """The alerts of /healthz; None if nobody answers."""
        health = self.ask("/healthz")
        if health is None:
            return None
        self._starting = False
        return list(health.get("alerts", []))

    def scored(self) -> int:
        """How many records of the topic `scores` are folded."""
        health = self.ask("/healthz")
        return 0 if health is None else int(health.get("positions", {}).get("scores", 0)) - 2

    def keeps_up(self) -> bool:
        """Whether its event time is the wall's, nearly: a fault shows in time only then."""
        health = self.ask("/healthz")
        if health is None or health.get("clock_ts") is None:
            return False
        behind = datetime.fromtimestamp(wall_ms() / 1000, UTC) - datetime.fromisoformat(health["clock_ts"])
        return behind.total_seconds() < BEHIND_SECONDS_MAX and sum(health["lag"].values()) < LAG_RECORDS_MAX

    def predictions(self, model_id: str, status: str) -> list[dict[str, Any]]:
        """Its newest predictions of a status, as the API tells them."""
        answer = self.ask(f"/reports/predictions?projectIds={model_id}&status={status}&limit=20")
        return [] if answer is None else list(answer)

    def until(self, holds: Callable[[], Found], what: str, seconds_max: float) -> Found:
        """Wait until `holds()` is true; returns it. Raises WorldError."""
        deadline = time.monotonic() + seconds_max
        while not (answer := holds()):
            if time.monotonic() > deadline:
                raise WorldError(
                    f"waited {seconds_max:g} s until {what}; the node last said: {self.last_lines()}"
                )
            if not self.stopped_by_us and self.exit_code is not None:
                raise WorldError(f"the node ended ({self.exit_code}): {self.last_lines()}")
            time.sleep(POLL_SECONDS)
        return answer

    # --- its log -------------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        """The address of its Kafka, for the drill."""
        return self.kafka_read_at or str(json.loads((self.data_dir / "node.json").read_text())["bootstrap"])

    def digests(self, ends: Mapping[str, int] | None = None) -> dict[str, tuple[int, str]]:
        """Topic -> (end, SHA-256 of every record before it). `ends`: up to there, not to today's end."""
        return asyncio.run(self._digests(ends))

    async def _digests(self, ends: Mapping[str, int] | None) -> dict[str, tuple[int, str]]:
        digests: dict[str, tuple[int, str]] = {}
        async with reading(self.bootstrap) as consumer:
            for topic, (_, end) in (await offsets(consumer, CRUNCH)).items():
                upto = end if ends is None else min(end, ends[topic])
                digest = hashlib.sha256()
                async for offset, record in read_range(consumer, topic_name(CRUNCH, topic), 0, upto):
                    digest.update(f"{offset} {len(record)} ".encode() + record)
                digests[topic] = (upto, digest.hexdigest())
        return digests


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
