"""Hosts of their own on one machine: network namespaces on a bridge, each with an address, processes and a cable.

The bridge has a namespace, too. The machine itself gets one more cable to it, so that a test can look at Kafka. Needs
root and `ip` (iproute2). All names begin with `prefix`; `close` ends the processes and takes everything away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

SUBNET = "198.18.77"
"""Of the range that is kept for tests of networks."""
BITS = 24
OWN_NUMBER = 250


def why_no_hosts() -> str:
    """Why no namespaces can be had here; "" if they can."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    return "" if shutil.which("ip") else "there is no `ip` (iproute2)"


class Network:
    """Hosts by name. Their addresses are SUBNET.1, .2 and so on."""

    def __init__(self, prefix: str, names: Sequence[str]) -> None:
        self._prefix = prefix
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        self._ip("netns", "add", self._namespace("switch"))
        switch = ("-n", self._namespace("switch"))
        self._ip(*switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self._ip(*switch, "link", "set", "bridge", "up")
        for name, number in self._numbers.items():
            self._ip("netns", "add", self._namespace(name))
            self._cable(number, ("-n", self._namespace(name)), self._namespace(name))
        self._cable(OWN_NUMBER, (), None)

    def _cable(self, number: int, at: Sequence[str], namespace: str | None) -> None:
        """A cable from the bridge to a host; without a namespace to this machine."""
        ours, theirs = (
            (f"{self._prefix}{number}", "eth0") if namespace else (f"{self._prefix}s", f"{self._prefix}m")
        )
        into = ("netns", namespace) if namespace else ()
        self._ip("link", "add", ours, "type", "veth", "peer", "name", theirs, *into)
        self._ip("link", "set", ours, "netns", self._namespace("switch"))
        switch = ("-n", self._namespace("switch"))
        self._ip(*switch, "link", "set", ours, "master", "bridge")
        self._ip(*switch, "link", "set", ours, "up")
        self._ip(*at, "addr", "add", f"{SUBNET}.{number}/{BITS}", "dev", theirs)
        self._ip(*at, "link", "set", theirs, "up")
        if namespace:
            self._ip(*at, "link", "set", "lo", "up")

    def address(self, name: str) -> str:
        return f"{SUBNET}.{self._numbers[name]}"

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str], out: IO[bytes], cwd: Path
    ) -> subprocess.Popen[bytes]:
        """A process on that host; its pid is that of the command itself."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace(name), *map(str, command)],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
        )
        self._processes.append(process)
        return process

    def run(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path
    ) -> tuple[int, str]:
        """(exit code, output) of a command on that host."""
        done = subprocess.run(
            ["ip", "netns", "exec", self._namespace(name), *map(str, command)],
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def cut(self, *names: str) -> None:
        """Pull the cables: what is sent is lost, and nobody is told."""
        self._set(names, "down")

    def mend(self, *names: str) -> None:
        """Plug the cables in again."""
        self._set(names, "up")

    def _set(self, names: Sequence[str], state: str) -> None:
        for name in names:
            cable = f"{self._prefix}{self._numbers[name]}"
            self._ip("-n", self._namespace("switch"), "link", "set", cable, state)

    def lose(self, name: str) -> None:
        """The host is gone in an instant: its cable first, then every process on it. It says no word of farewell."""
        self.cut(name)
        for pid in self._pids(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for name in self._numbers:
            for pid in self._pids(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        for name in (*self._numbers, "switch"):
            subprocess.run(["ip", "netns", "del", self._namespace(name)], capture_output=True, check=False)

    def _pids(self, name: str) -> list[int]:
        done = subprocess.run(
            ["ip", "netns", "pids", self._namespace(name)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in done.stdout.split()]

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
