"""Processes forked from one that has imported already: they start in a few ms and share its pages.

A node runs five workers and as many processes as it has models. Started one by one, each imports for a second of CPU
and keeps 40 MB of its own. Here one process imports, and each worker is a fork of it.

This is the client, in asyncio, in the supervising process. `forking.py` is the server. A server has one thread and
holds no secret of its own; the kernel kills its forks with it (Linux), and it with the process that asks. It may itself
begin as a fork of that process, and then shares with it what both import.

On other systems than Linux libraries do not survive a fork, so the same program is started for every request.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from coordinator.infra.processes.forking import ANSWERS, CHANNEL, FORKS, LENGTH, ForkOfThis, fork_this
from coordinator.streams.log.errors import WorldError

TRIES = 3

# Runs in the child before its program does: asks the kernel to kill this process when its parent dies (1 is
# PR_SET_PDEATHSIG), and gives up if the parent is gone already. A `preexec_fn` would not be safe beside threads.
DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def bound_to_us(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in a process which the kernel kills when ours dies (Linux)."""
    return [sys.executable, "-ISc", DIE_WITH_PARENT, str(os.getpid()), *command]


class Forked:
    """A process that a server forked for us, with the needed parts of asyncio's `Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """The exit code when it has ended; negative: the signal that ended it."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """SIGTERM, while it lives."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def end(self, code: int) -> None:
        """Called by its server: it has ended."""
        if self.returncode is None:
            self.returncode = code
            self._ended.set_result(code)


class ForkServer:
    """The asking side. `command` is a program that calls `forked()`; it is started when it is first needed.

    What the server itself says, of a failing import say, goes to our own stderr.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command, self._environ = tuple(command), dict(environ)
        self._asking = asyncio.Lock()
        self._life: _ServerLife | None = None

    def start(self, program: Callable[[], None] | None = None) -> None:
        """Let it import from now on, also before there is an event loop. The thread that starts it must outlive it.

        With `program`, which does what the command does, its first life is a fork of this process. Call it before this
        process has another thread or a secret, and after the imports that both need.
        """
        if FORKS:
            self._life = _ServerLife(self._command, self._environ, program)

    async def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> Forked:
        """A process in a session of its own, for which `forked()` returns `request` and its copies of `fds`.

        The first three of `fds` become its stdin, stdout and stderr. A request may hold `environ`, the variables that
        it has, `cwd`, and `name`, under which `top` shows it. Raises WorldError when the server does not live.
        """
        async with self._asking:
            for _ in range(TRIES):
                server = await self._running()
                try:
                    return await server.fork(request, fds)
                except ConnectionError:
                    # A write can fail before the event loop hears that the server has ended: without this, every try
                    # would be with the dead one.
                    server.stop()
                    server.has_ended = True
        raise WorldError(f"processes could not be started: {self._command} ends before it has started one")

    def stop(self) -> None:
        """End the server, and with it whatever it has forked."""
        if self._life is not None:
            self._life.stop()

    async def _running(self) -> _ServerLife:
        if self._life is None or self._life.has_ended or not FORKS:
            self._life = _ServerLife(self._command, self._environ)
        await self._life.listen()
        return self._life


class _ServerLife(asyncio.Protocol):
    """One life of a server; a protocol for its answers."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        program: Callable[[], None] | None = None,
    ) -> None:
        self.has_ended = False
        self._rest = b""
        self._starting: deque[asyncio.Future[Forked]] = deque()
        self._forked: dict[int, Forked] = {}
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        reading, answers = os.pipe()
        self._answers: int | None = reading
        arguments = [*command, CHANNEL, str(theirs.fileno()), ANSWERS, str(answers)]
        self._process: subprocess.Popen[bytes] | ForkOfThis
        try:
            with theirs:
                if program is not None:
                    self._process = fork_this(program, arguments, environ, (theirs.fileno(), answers))
                else:
                    self._process = subprocess.Popen(
                        bound_to_us(arguments),
                        stdin=subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(), answers),
                        env=environ,
                        start_new_session=True,
                    )
        finally:
            os.close(answers)

    async def listen(self) -> None:
        """Hear its answers, from the first call on."""
        if self._answers is None:
            return
        answers, self._answers = os.fdopen(self._answers, "rb", buffering=0), None
        await asyncio.get_running_loop().connect_read_pipe(lambda: self, answers)
        if not FORKS:
            self._watching = asyncio.create_task(self._watch())

    async def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> Forked:
        started: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._starting.append(started)
        body = json.dumps(request).encode()
        try:
            socket.send_fds(self._channel, [LENGTH.pack(len(body))], fds)
            await asyncio.get_running_loop().sock_sendall(self._channel, body)
        except ConnectionError:
            if started in self._starting:
                self._starting.remove(started)
            raise
        return await started

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    async def _watch(self) -> None:
        """Where nothing is forked, the server is the process asked for."""
        self._ended(self._process.pid, await asyncio.to_thread(self._process.wait))

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            pid, code = json.loads(line)
            if code is not None:
                self._ended(pid, code)
            elif self._starting:
                child = self._forked[pid] = Forked(pid)
                if not (started := self._starting.popleft()).cancelled():
                    started.set_result(child)

    def _ended(self, pid: int, code: int) -> None:
        if (child := self._forked.pop(pid, None)) is not None:
            child.end(code)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server has ended, and the kernel its forks; where nothing is forked, it has become what was asked."""
        self.has_ended = True
        self._channel.close()
        for started in self._starting:
            if not started.cancelled():
                started.set_exception(ConnectionError("the server ended"))
        self._starting.clear()
        if FORKS:
            for pid in list(self._forked):
                self._ended(pid, -signal.SIGKILL)
