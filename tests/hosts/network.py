"""Hosts of their own on one machine: network namespaces on a bridge, each with an address, processes and a cable.

The cables are the wires of `wires.py`, which can be slow, lose packets, or carry them in one direction alone. The
bridge has a namespace, too. The machine itself gets one more cable to it, a fast one, so that a test can look at Kafka.
Needs root and `ip` (iproute2). All names begin with a `c` and this process's id; `close` ends the processes and takes
everything away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec
from tests.hosts.wires import Manner, Order

TUN = Path("/dev/net/tun")
SUBNETS = 256
"""Of the range that is kept for tests of networks: networks of several tests may stand side by side."""
BITS = 24
OWN_NUMBER = 250


def why_no_hosts() -> str:
    """Why no namespaces are available here; "" if they are."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if not TUN.exists():
        return f"the wires need {TUN}"
    return "" if shutil.which("ip") else "there is no `ip` (iproute2)"


class Network:
    """Hosts by name. Their addresses end with .1, .2 and so on."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"c{os.getpid() % 100_000}"
        self._subnet = f"198.18.{os.getpid() % SUBNETS}"
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._relay: subprocess.Popen[bytes]

    def open(self) -> None:
        ends = [
            end
            for number in self._numbers.values()
            for end in (f"{self._prefix}h{number}", f"{self._prefix}{number}")
        ]
        self._relay = subprocess.Popen(
            [sys.executable, "-I", Path(__file__).with_name("wires.py"), *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._wait_relay()
        self._ip("netns", "add", self._namespace("switch"))
        switch = ("-n", self._namespace("switch"))
        self._ip(*switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self._ip(*switch, "link", "set", "bridge", "up")
        for name, number in self._numbers.items():
            self._ip("netns", "add", self._namespace(name))
            near = f"{self._prefix}h{number}"
            self._ip("link", "set", near, "netns", self._namespace(name))
            at = ("-n", self._namespace(name))
            self._ip(*at, "link", "set", near, "name", "eth0")
            self._connect(number, f"{self._prefix}{number}", at, "eth0")
            self._ip(*at, "link", "set", "lo", "up")
        ours, theirs = f"{self._prefix}m", f"{self._prefix}s"
        self._ip("link", "add", theirs, "type", "veth", "peer", "name", ours)
        self._connect(OWN_NUMBER, theirs, (), ours)

    def _connect(self, number: int, far: str, at: Sequence[str], near: str) -> None:
        """Plugs the far end of a cable into the bridge, and gives its near end the address."""
        self._ip("link", "set", far, "netns", self._namespace("switch"))
        switch = ("-n", self._namespace("switch"))
        self._ip(*switch, "link", "set", far, "master", "bridge")
        self._ip(*switch, "link", "set", far, "up")
        self._ip(*at, "addr", "add", f"{self._subnet}.{number}/{BITS}", "dev", near)
        self._ip(*at, "link", "set", near, "up")

    def carry(self, names: Iterable[str], out: Manner, back: Manner | None = None) -> None:
        """From now on the cables of these hosts carry so what the hosts send, and what they receive (unless given, the
        same).
        """
        for name in names:
            order = Order(self._numbers[name] - 1, out, out if back is None else back)
            assert self._relay.stdin is not None
            self._relay.stdin.write(msgspec.json.encode(order) + b"\n")
            self._relay.stdin.flush()
            self._wait_relay()

    def _wait_relay(self) -> None:
        assert self._relay.stdout is not None
        assert self._relay.stdout.readline() == b"done\n", f"the wires ended with {self._relay.poll()}"

    def address(self, name: str) -> str:
        return f"{self._subnet}.{self._numbers[name]}"

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
        """Pulls the cables: everything sent is lost, and nobody is notified."""
        self._set(names, "down")

    def mend(self, *names: str) -> None:
        """Plug the cables in again."""
        self._set(names, "up")

    def _set(self, names: Sequence[str], state: str) -> None:
        for name in names:
            cable = f"{self._prefix}{self._numbers[name]}"
            self._ip("-n", self._namespace("switch"), "link", "set", cable, state)

    def lose(self, name: str) -> None:
        """The host is gone in an instant: its cable first, then every process on it, without any goodbye message."""
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
        self._relay.kill()
        with self._relay:  # closes its pipes
            pass
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
