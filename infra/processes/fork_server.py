"""Processes forked from one that has imported already: they start in a few ms and share its pages.

A node runs five workers and as many processes as it has models. Started one by one, each imports for a second of CPU
and keeps 40 MB of its own. Here one process imports, and each worker is a fork of it.

`ForkServer` is the asking side: asyncio, in the process that supervises. `forked()` is the other one: a program calls
it after its imports, and it returns in every fork, which then does what it was asked to. A server has one thread and
holds no secret of its own; the kernel kills its forks with it (Linux), and it with the process that asks.

Elsewhere than on Linux, where libraries do not survive a fork, the same program is started anew for every request.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from coordinator.streams.log.errors import WorldError

FORKS = sys.platform == "linux"
FDS_MAX = 8
TRIES = 3
PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
_LENGTH = struct.Struct("!I")
_CHANNEL, _ANSWERS = "--fork-channel", "--fork-answers"

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
    """A process that a server forked for us: what of asyncio's `Process` is needed."""

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
        self._one: _One | None = None

    def start(self) -> None:
        """Let it import from now on, also before there is an event loop. The thread that starts it must outlive it."""
        if FORKS:
            self._one = _One(self._command, self._environ)

    async def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> Forked:
        """A process in a session of its own, for which `forked()` returns `request` and its copies of `fds`.

        The first three of `fds` become its stdin, stdout and stderr. A request may hold `environ`, the variables that
        it has, `cwd`, and `name`, under which `top` shows it. Raises WorldError when the server does not live.
        """
        async with self._asking:
            for _ in range(TRIES):
                server = await self._running()
                with suppress(ConnectionError):
                    return await server.fork(request, fds)
        raise WorldError(f"processes could not be started: {self._command} ends before it has started one")

    def stop(self) -> None:
        """End the server, and with it whatever it has forked."""
        if self._one is not None:
            self._one.stop()

    async def _running(self) -> _One:
        if self._one is None or self._one.has_ended or not FORKS:
            self._one = _One(self._command, self._environ)
        await self._one.listen()
        return self._one


class _One(asyncio.Protocol):
    """One life of a server; a protocol for its answers."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.has_ended = False
        self._rest = b""
        self._starting: deque[asyncio.Future[Forked]] = deque()
        self._forked: dict[int, Forked] = {}
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        self._answers: int | None
        self._answers, answers = os.pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    bound_to_us([*command, _CHANNEL, str(theirs.fileno()), _ANSWERS, str(answers)]),
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
        socket.send_fds(self._channel, [_LENGTH.pack(len(body))], fds)
        await asyncio.get_running_loop().sock_sendall(self._channel, body)
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


# --- the other side ----------------------------------------------------------------------------------------


def forked(arguments: list[str]) -> tuple[dict[str, Any], list[int]] | None:
    """Serve, and return in every fork: (request, its file descriptors from the fourth on); None at the server's end.

    Call it in a program's main thread, before any other exists. `arguments` are the program's: None also where they
    name no channel, that is where nobody asks for forks.
    """
    if _CHANNEL not in arguments:
        return None
    channel = socket.socket(fileno=int(arguments[arguments.index(_CHANNEL) + 1]))
    answers = int(arguments[arguments.index(_ANSWERS) + 1])
    for fd in (channel.fileno(), answers):
        os.set_inheritable(fd, False)
    # What is imported lives as long as the process. A collector that walked it would copy the pages that are shared.
    gc.collect()
    gc.freeze()
    waking, wakes = os.pipe()
    for fd in (waking, wakes):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    server = os.getpid()
    while True:
        ready, _, _ = select.select([channel.fileno(), waking], [], [])
        if waking in ready:
            os.read(waking, 4096)
            _reap(answers)
        if channel.fileno() not in ready:
            continue
        if (request := _receive(channel)) is None:
            return None
        pid = os.fork() if FORKS else 0
        if pid == 0:
            if not FORKS:
                _answer(answers, server, None)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (channel.detach(), answers, waking, wakes):
                os.close(fd)
            return _become(server, *request)
        for fd in request[1]:
            os.close(fd)
        _answer(answers, pid, None)


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, FDS_MAX)
    if len(head) < _LENGTH.size:
        return None
    left = _LENGTH.unpack(head)[0]
    parts = []
    while left:
        part = channel.recv(left)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return json.loads(b"".join(parts)), fds


def _become(server: int, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    if FORKS:
        os.setsid()
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)
        libc.prctl(PR_SET_NAME, str(request.get("name", "")).encode()[:15], 0, 0, 0)
    for fd, standard in zip(fds, (0, 1, 2), strict=False):
        os.dup2(fd, standard)
    for fd in fds[:3]:
        os.close(fd)
    if (environ := request.get("environ")) is not None:
        os.environ.clear()
        os.environ.update(environ)
    if (cwd := request.get("cwd")) is not None:
        os.chdir(cwd)
    return request, fds[3:]


def _reap(answers: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer(answers, pid, os.waitstatus_to_exitcode(status))


def _answer(answers: int, pid: int, code: int | None) -> None:
    """Shorter than a pipe writes in one piece."""
    with suppress(BrokenPipeError):
        os.write(answers, json.dumps([pid, code]).encode() + b"\n")
