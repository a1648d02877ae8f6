"""A rendered node in real containers, worked with as its operator does: by `make`, in its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from coordinator.infra.kafka.embedded import free_ports
from coordinator.scaffolds.render import render

MAKE_SECONDS_MAX = 900
STUCK_SECONDS = 600
"""What is not there after this long never comes. How fast it comes depends on what else the machine does, so no test
asserts it: the tests print it."""


def why_no_engine() -> str:
    """Empty where containers can be run, else the reason."""
    if shutil.which("docker") is None or shutil.which("make") is None:
        return "there is no docker or no make on this machine"
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if asked.returncode:
        return "docker compose is not here"
    asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return "no container engine answers" if asked.returncode else ""


class Node:
    """One deployment. `settings` are lines of its `.env`."""

    def __init__(self, name: str, folder: Path, **settings: object) -> None:
        self.name = name
        workspace = render(name, "realtime", folder, version="test")
        self.folder = workspace.node
        (self.port,) = free_ports(1)
        self.set(API_PORT=self.port, FEED_SOURCE="generated", **settings)

    def set(self, **settings: object) -> None:
        """Write settings over those that `.env` has."""
        path = self.folder / ".env"
        lines = [
            line for line in path.read_text().splitlines() if line.split("=")[0].lstrip("#") not in settings
        ]
        path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in settings.items())]) + "\n")

    def make(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`make ...`. With `check` it must succeed; what it said is in the failure."""
        return self.run(["make", *arguments], check=check)

    def tools(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Any:
        """`docker compose run tools ...`; gives stdout as bytes."""
        variables = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        return subprocess.run(
            ["docker", "compose", "run", "--rm", "-T", *variables, "tools", *arguments],
            cwd=self.folder, env=self.environment, input=stdin, capture_output=True, timeout=MAKE_SECONDS_MAX, check=False,
        )  # fmt: skip

    def run(self, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=MAKE_SECONDS_MAX, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with this environment's `coordinator` on the path and no settings of a node."""
        ours = {
            "CRUNCH_ID",
            "CONTRACT",
            "KAFKA_BOOTSTRAP",
            "DATA_DIR",
            "FEED_SOURCE",
            "API_PORT",
            "COMPOSE_PROFILES",
        }
        of_ours_none = {name: value for name, value in os.environ.items() if name not in ours}
        return of_ours_none | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def get(self, path: str) -> Any:
        """The API's JSON, None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def wait_until(self, holds: Any, what: str) -> float:
        """Poll until `holds()`; gives the seconds it took."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > STUCK_SECONDS:
                listing = self.run(["docker", "compose", "ps", "--all"], check=False).stdout
                raise AssertionError(f"{what}: not within {STUCK_SECONDS} s\n{listing}")
            time.sleep(0.3)
        return time.monotonic() - began

    def scored(self) -> int:
        summary = self.get("/reports/summary")
        return summary["predictions"]["scored"] if summary else 0

    def states(self) -> dict[str, tuple[str, str]]:
        """service -> (state, health)."""
        rows = self.run(["docker", "compose", "ps", "--all", "--format", "json"]).stdout.splitlines()
        containers = [json.loads(row) for row in rows]
        return {row["Service"]: (row["State"], row["Health"]) for row in containers}

    def all_healthy(self) -> bool:
        """Every container that stays."""
        states = {name: state for name, state in self.states().items() if name != "topics"}
        return len(states) >= 7 and set(states.values()) == {("running", "healthy")}

    def container(self, service: str) -> str:
        return self.run(["docker", "compose", "ps", "--all", "--quiet", service]).stdout.strip()

    def inspect(self, what: str, service: str) -> str:
        return self.run(["docker", "inspect", "--format", what, self.container(service)]).stdout.strip()

    def kill(self, service: str) -> None:
        """kill -9 of the container's first process, from outside: the engine then acts as after any death."""
        os.kill(int(self.inspect("{{.State.Pid}}", service)), signal.SIGKILL)

    def verify(self, *arguments: str) -> dict[str, Any]:
        """The result of `coordinator verify-e2e --json` from a container beside the node."""
        done = self.tools("verify-e2e", "--json", *arguments)
        assert done.stdout, done.stderr.decode()
        return json.loads(done.stdout)

    def remove(self) -> None:
        self.make("reset", f"YES={self.name}", check=False)
        subprocess.run(
            ["docker", "image", "rm", f"crunch-node-{self.name}"], capture_output=True, check=False
        )
