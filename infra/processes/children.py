"""Child processes: each in a session of its own, killed when we die, with its output kept.

Reads a child's stdout and stderr (one pipe, so that their order is kept); writes them to a log file of
bounded size and hands each line on. The child does not write the file itself, because the supervisor
needs the last line for its message, and the events in the lines for its state.

A child is the leader of a process group, so that Ctrl-C in the terminal reaches the supervisor alone and
`kill()` takes along whatever the child has started. The kernel kills it when its parent dies (Linux). That
rule is per thread: children are started by the thread that runs the event loop, which must be the main one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coordinator.infra.disk import DiskFullError
from coordinator.infra.kafka.embedded import EmbeddedBroker, PortTakenError
from coordinator.infra.processes.fork_server import Forked, ForkServer, bound_to_us
from coordinator.infra.processes.sockets import handed_on
from coordinator.infra.rotated_log import RotatedLog

LOG_BYTES_MAX = 20 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024
POLL_SECONDS = 0.1
PORT_SECONDS_MAX, PORT_POLL_SECONDS = 60.0, 0.5

OnLine = Callable[[str], None]


class Process(Protocol):
    """What a supervisor needs of a child."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process id while it runs or has run; None before the first start."""

    @property
    def last_line(self) -> str:
        """The last thing it said."""

    @property
    def stop_seconds_max(self) -> float:
        """How long a clean end may take it."""

    @property
    def silent_seconds(self) -> float:
        """Seconds since its last sign of life; 0 for a process that gives none."""

    async def start(self) -> None:
        """Start it (again). Returns once it is forked."""

    async def wait(self) -> int:
        """The exit code when it has ended; negative: the signal that ended it."""

    def terminate(self) -> None:
        """Ask it to end. Nothing happens when it does not run."""

    def kill(self) -> None:
        """End it and its process group at once. Nothing happens when they do not run."""


@dataclass(frozen=True)
class Launch:
    """How a child is started.

    `environ` is its whole environment; None is a copy of this process's environment. With `forked_by` it is a fork of
    that server, and `command` the arguments of what the server has imported. `sockets` are handed on by their (host,
    port), under which the child asks for them (`infra/processes/sockets.py`).
    """

    command: Sequence[str]
    environ: Mapping[str, str] | None = None
    forked_by: ForkServer | None = None
    sockets: Mapping[tuple[str, int], socket.socket] | None = None


class LoggedProcess:
    """A command as a child. `gate`, where given, is awaited after each start; its bytes go to the child's stdin.

    So a child imports while the rest of the node still starts, and learns afterwards what became known meanwhile.
    """

    def __init__(
        self,
        name: str,
        launch: Launch,
        log_file: Path,
        *,
        on_line: OnLine | None = None,
        gate: Callable[[], Awaitable[bytes]] | None = None,
        alive_file: Path | None = None,
    ) -> None:
        self.name = name
        self.stop_seconds_max = 0.0
        self._forked_by = launch.forked_by
        self._sockets = dict(launch.sockets or {})
        self._alive_file = alive_file
        self._touched = (-1, 0.0)
        self.log_file = log_file
        self._command = tuple(launch.command)
        self._environ = dict(os.environ if launch.environ is None else launch.environ)
        self._on_line = on_line
        self._gate = gate
        self._process: asyncio.subprocess.Process | Forked | None = None
        self._opening: asyncio.Task[None] | None = None
        self._output: _OutputPipe | None = None
        self._last_line = ""

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def last_line(self) -> str:
        """The last line that is not empty, of this start or an earlier one."""
        return self._last_line

    @property
    def silent_seconds(self) -> float:
        """For how long it has not touched `alive_file`, as it does while it works; 0 before its first sign of life."""
        if self._alive_file is None:
            return 0.0
        try:
            touched = self._alive_file.stat().st_mtime_ns
        except FileNotFoundError:
            return 0.0
        if touched != self._touched[0]:  # its age by our own clock: the wall's may jump
            self._touched = (touched, time.monotonic())
        return time.monotonic() - self._touched[1]

    async def start(self) -> None:
        """Start the command. Raises OSError when there is no such program."""
        if self._alive_file is not None:
            self._alive_file.unlink(missing_ok=True)
        read_end, write_end = os.pipe()
        stdin, gate_fd = (os.open(os.devnull, os.O_RDONLY), None) if self._gate is None else os.pipe()
        try:
            self._process = await self._started(stdin, write_end)
        except BaseException:
            os.close(read_end)
            if gate_fd is not None:
                os.close(gate_fd)
            raise
        finally:
            os.close(write_end)
            os.close(stdin)
        self._output = _OutputPipe(read_end, RotatedLog(self.log_file, LOG_BYTES_MAX), self._heard)
        if self._gate is not None and gate_fd is not None:
            self._opening = asyncio.create_task(_open_gate(self._gate, gate_fd))

    async def _started(self, stdin: int, output: int) -> asyncio.subprocess.Process | Forked:
        socket_fds = [socket_.fileno() for socket_ in self._sockets.values()]
        if self._forked_by is not None:
            request = {
                "name": self.name,
                "arguments": self._command,
                "environ": self._environ,
                "sockets": list(self._sockets),
            }
            return await self._forked_by.fork(request, (stdin, output, output, *socket_fds))
        return await asyncio.create_subprocess_exec(
            *bound_to_us(self._command),
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=socket_fds,
            env=self._environ | handed_on(self._sockets, socket_fds),
            start_new_session=True,
        )

    async def wait(self) -> int:
        """The exit code, once the child has ended and what it said has been read."""
        assert self._process is not None, "start() comes first"  # noqa: S101
        code = await self._process.wait()
        self.kill()  # whatever it left behind in its group would hold the pipe open
        if self._opening is not None:
            self._opening.cancel()
        if self._output is not None:
            await self._output.ended(timeout_seconds=1.0)
            self._output = None
        return code

    def terminate(self) -> None:
        """SIGTERM to the child alone: it knows best how to end what it has started."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def _heard(self, line: str) -> None:
        self._last_line = line
        if self._on_line is not None:
            self._on_line(line)


async def _open_gate(gate: Callable[[], Awaitable[bytes]], stdin_fd: int) -> None:
    """Write what the gate gives, a few kB, to a child that waits for it."""
    with os.fdopen(stdin_fd, "wb", buffering=0) as stdin:
        line = await gate()
        with contextlib.suppress(BrokenPipeError):  # it has ended; `wait` tells
            stdin.write(line)


class _OutputPipe:
    """The reading end of a child's output: into the log as it comes, by line to `heard`."""

    def __init__(self, fd: int, log: RotatedLog, heard: OnLine) -> None:
        self._fd = fd
        self._log = log
        self._heard = heard
        self._rest = b""
        self._end = asyncio.Event()
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    async def ended(self, timeout_seconds: float) -> None:
        """Wait for the end of the output, or no longer than that, and let everything go."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._end.wait()
        except TimeoutError:
            self._close()

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close()
            return
        self._log.write(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if text:
            self._heard(text)

    def _close(self) -> None:
        if self._end.is_set():
            return
        self._end.set()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._tell(self._rest)
        self._rest = b""
        self._log.close()


class BrokerProcess:
    """The embedded broker as a `Process`. It is prepared already; a start again keeps its ports and its log."""

    name = "kafka"

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.is_known = False
        """Do clients know its port? Until then it may take another."""
        self._waits = ""

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return self._broker.pid

    @property
    def stop_seconds_max(self) -> float:
        """As long as a log of its size may need."""
        return self._broker.stop_seconds_max

    @property
    def silent_seconds(self) -> float:
        """Always 0: the workers notice when Kafka does not answer."""
        return 0.0

    @property
    def last_line(self) -> str:
        """The last line of Kafka's log that is no inner line of a stack trace; a full disk by its name."""
        if self._waits:
            return self._waits
        if self._broker.disk_is_full:
            return str(DiskFullError(self._broker.data_dir))
        try:
            tail = self._broker.log_file.read_bytes()[-READ_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in tail.splitlines() if line.strip() and not line.startswith("\t")]
        return lines[-1] if lines else ""

    async def start(self) -> None:
        """Start the broker. It forks in this thread on purpose (see the module).

        A port in use is waited for once clients know no other: after a fall somebody's connection or a tool may hold it
        for a while. Before that another one is taken. Raises OperatorError after a minute.
        """
        for _ in range(int(PORT_SECONDS_MAX / PORT_POLL_SECONDS)):
            try:
                self._broker.start()
            except PortTakenError as error:
                if not self.is_known:
                    self._broker.move()
                    continue
                self._waits = f"waits for its port: {error}"
                await asyncio.sleep(PORT_POLL_SECONDS)
            else:
                self._waits = ""
                return
        self._broker.start()

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        while self._broker.is_alive():  # noqa: ASYNC110 - subprocess.Popen has no event
            await asyncio.sleep(POLL_SECONDS)
        return self._broker.exit_code or 0

    def terminate(self) -> None:
        """SIGTERM: Kafka writes out and leaves a clean log."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: it is one process."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._broker.is_alive() and self._broker.pid is not None:
            os.kill(self._broker.pid, number)
