"""The process that others are forked from: it serves requests for forks, and may be a fork of the one that asks.

`forked()`: a program calls it after its imports, and it returns in every fork, which then does what it was asked to.
`fork_this()` begins such a program as a fork of this process. Only the standard library, since the process of every
model imports this. `fork_server.py` is the side that asks.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NoReturn

FORKS = sys.platform == "linux"
FDS_MAX = 8
PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
LENGTH = struct.Struct("!I")
"""The head of a request: how many bytes of JSON follow."""
CHANNEL, ANSWERS = "--fork-channel", "--fork-answers"
"""The arguments that name the file descriptors of a server: where requests come in, and where answers go."""


class ForkOfThis:
    """What is used of `subprocess.Popen`, for a process that `fork_this()` made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def kill(self) -> None:
        """SIGKILL, unless it was waited for."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code once it has ended; negative: the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def fork_this(
    program: Callable[[], None], arguments: Sequence[str], environ: Mapping[str, str], its: Collection[int]
) -> ForkOfThis:
    """Fork a process that runs `program` with these `sys.argv` and variables, as if it had been started as a new
    process.

    Of what is open here it has stdout, stderr and the file descriptors `its`. This process must have one thread.
    """
    keep_from_the_collector()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what is in a buffer would be written twice
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run(parent, program, arguments, environ, its)
    return ForkOfThis(pid)


def _run(
    parent: int,
    program: Callable[[], None],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    its: Collection[int],
) -> NoReturn:
    """Run it and end, without what the process that was forked would do at its end."""
    code: object = 1
    try:
        _leave(parent, "fork-server")
        # Objects of the forked process still refer to what is closed here. They are held by its frames, which never
        # end.
        bounds = [2, *sorted(its), os.sysconf("SC_OPEN_MAX")]
        for before, after in pairwise(bounds):
            os.closerange(before + 1, after)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = list(arguments)
        program()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - the edge of a process: what the interpreter does with an error
        traceback.print_exc()
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    logging.shutdown()  # as at the end of a process that was not forked: it says which lines were left out
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code or 0)


def forked(arguments: list[str]) -> tuple[dict[str, Any], list[int]] | None:
    """Serve, and return in every fork: (request, its file descriptors from the fourth on); None at the server's end.

    Call it in a program's main thread, before any other exists. `arguments` are the program's: None also where they
    name no channel, that is where nobody asks for forks.
    """
    if CHANNEL not in arguments:
        return None
    channel = socket.socket(fileno=int(arguments[arguments.index(CHANNEL) + 1]))
    answers = int(arguments[arguments.index(ANSWERS) + 1])
    for fd in (channel.fileno(), answers):
        os.set_inheritable(fd, False)
    keep_from_the_collector()
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


def keep_from_the_collector() -> None:
    """What is imported lives as long as the process. A collector that walked it would copy the pages that are shared,
    and pause the process for tens of ms.
    """
    gc.collect()
    gc.freeze()


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, fds, _, _ = socket.recv_fds(channel, LENGTH.size, FDS_MAX)
    if len(head) < LENGTH.size:
        return None
    left = LENGTH.unpack(head)[0]
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
        _leave(server, str(request.get("name", "")))
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


def _leave(parent: int, name: str) -> None:
    """Give this fork a session of its own and a name, and let the kernel kill it with `parent`."""
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


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
