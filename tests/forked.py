"""Processes of tests, forked from a process that has done the imports, because imports cost most of a short process's
time.

`start` replaces `subprocess.Popen`. The parent is `forking_parent.py` beside this module, which runs a command, a script
or a module of the product in the fork. All processes of a test run share one parent for each hash seed that is wanted
(`ForksForAll`, in the process that prints the results). A fork ends with the process that asked for it, and with its
parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PARENT = Path(__file__).with_name("forking_parent.py")
ADDRESS = "COORDINATOR_TEST_FORKS"
"""The variable that names the socket of `ForksForAll`."""
ASKED_BYTES_MAX = 128 * 1024
LENGTH = struct.Struct("!I")
"""The head of a request, as `infra/processes/forking.py` reads it."""


class ForkedProcess:
    """A fork, with those parts of `subprocess.Popen` that tests use."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """The exit code if it has ended; negative: the signal that ended it."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once it has ended. Raises subprocess.TimeoutExpired."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if the fork is alive. One that has just ended, which the parent has not reported yet, is passed
        over, as `subprocess.Popen` does.
        """
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM if the fork is alive."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL if the fork is alive."""
        self.send_signal(signal.SIGKILL)

    def end(self, code: int) -> None:
        """The parent's reader calls this when the fork has ended."""
        self.returncode = code
        self._ended.set()


class ForkingParent:
    """The process that has imported, and the thread that reads its messages about forks."""

    def __init__(
        self, program: Path = PARENT, arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self._asking = threading.Lock()
        self._starting: deque[tuple[ForkedProcess, threading.Event]] = deque()
        self._forked: dict[int, ForkedProcess] = {}
        self._channel, theirs = socket.socketpair()
        reading, answers = os.pipe()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-Iu", str(program)),
                    *("--fork-channel", str(theirs.fileno()), "--fork-answers", str(answers), *arguments),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), answers),
                env=environ,
                start_new_session=True,
            )
        os.close(answers)
        threading.Thread(target=self._hear, args=(reading,), daemon=True, name="forks").start()

    def fork(self, request: Mapping[str, object], fds: Sequence[int]) -> ForkedProcess:
        """A fork that carries out `request`. The three `fds` are its stdin, stdout and stderr."""
        child, started = ForkedProcess(), threading.Event()
        body = json.dumps(request).encode()
        with self._asking:
            self._starting.append((child, started))
            socket.send_fds(self._channel, [LENGTH.pack(len(body))], fds)
            self._channel.sendall(body)
        started.wait()
        assert child.pid, "the process that forks has ended; what it said stands above"
        return child

    def end(self) -> None:
        """Kill the parent, and so its forks."""
        self._process.kill()
        self._process.wait()

    def _hear(self, answers: int) -> None:
        with os.fdopen(answers, "rb") as lines:
            for line in lines:
                pid, code = json.loads(line)
                if code is not None:
                    self._forked.pop(pid).end(code)
                    continue
                child, started = self._starting.popleft()
                child.pid = pid
                self._forked[pid] = child
                started.set()
        for _, started in self._starting:
            started.set()
        # The parent is gone. The kernel has killed its forks; where nothing is forked, it was the one fork itself.
        code = -signal.SIGKILL if sys.platform == "linux" else self._process.wait()
        for child in self._forked.values():
            child.end(code)


class ForkingParents:
    """A `ForkingParent` for each hash seed that is asked for: a fork has the seed of its parent."""

    def __init__(self) -> None:
        self._parents: dict[str, ForkingParent] = {}
        self._starting = threading.Lock()

    def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> ForkedProcess:
        """As `ForkingParent.fork`. The seed is PYTHONHASHSEED of the request's variables."""
        seed = request["environ"].get("PYTHONHASHSEED", "random")
        with self._starting:
            if (
                seed not in self._parents or sys.platform != "linux"
            ):  # elsewhere a parent is used up by one request
                self._parents[seed] = ForkingParent(environ=os.environ | {"PYTHONHASHSEED": seed})
        return self._parents[seed].fork(request, fds)

    def end(self) -> None:
        """Kill the parents, and so their forks."""
        for parent in self._parents.values():
            parent.end()


class ForksForAll:
    """Serves the forks of all processes of a test run, at a socket in `folder`: what is imported is imported once."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "forks")
        self._parents = ForkingParents()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(self.address)
        self._listening.listen()
        threading.Thread(target=self._listen, daemon=True, name="forks for all").start()

    def end(self) -> None:
        """End the parents, and so all forks."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._parents.end()

    def _listen(self) -> None:
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:  # closed by `end`
                return
            threading.Thread(target=self._serve, args=(asking,), daemon=True, name="fork for one").start()

    def _serve(self, asking: socket.socket) -> None:
        with asking:
            body, fds, _, _ = socket.recv_fds(asking, ASKED_BYTES_MAX, 3)
            try:
                child = self._parents.fork(json.loads(body), fds)
            finally:
                for fd in fds:
                    os.close(fd)
            asking.send(str(child.pid).encode())

            def tell() -> None:
                code = child.wait()
                with contextlib.suppress(OSError):  # nobody is interested any more
                    asking.send(str(code).encode())

            threading.Thread(target=tell, daemon=True, name="end of a fork").start()
            asking.recv(1)  # whoever asked has heard the code and closes, or has ended
            child.kill()


_own_parents: list[ForkingParents] = []
"""Those of this process, where no other one serves forks."""


def start(
    arguments: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    out: IO[bytes],
    errors: IO[bytes] | None = None,
    script: Path | None = None,
    cwd: Path | None = None,
    piped: bool = False,
) -> ForkedProcess:
    """`coordinator ARGUMENTS` as a process of its own, or `script` with these arguments. `out` receives its stdout, and
    its stderr too unless `errors` is given.

    `piped`: its stdin is the pipe `process.stdin`. By default its stdin is empty.
    """
    request = {
        "name": script.stem if script else f"test-{arguments[0]}",
        "script": str(script or ""),
        "arguments": [str(argument) for argument in arguments],
        "environ": dict(env),
        "cwd": str(cwd or Path.cwd()),
    }
    reading, writing = os.pipe() if piped else (os.open(os.devnull, os.O_RDONLY), None)
    try:
        child = start_with(request, (reading, out.fileno(), (errors or out).fileno()))
    finally:
        os.close(reading)
    if writing is not None:
        child.stdin = os.fdopen(writing, "wb")
    return child


def start_with(request: Mapping[str, Any], fds: Sequence[int]) -> ForkedProcess:
    """A fork for `arguments` of a request, with its `environ` and `cwd`; `fds` are its stdin, stdout and stderr."""
    if ADDRESS not in os.environ:
        if not _own_parents:
            _own_parents.append(ForkingParents())
        return _own_parents[0].fork(request, fds)
    child, asking = ForkedProcess(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking.connect(os.environ[ADDRESS])
    socket.send_fds(asking, [json.dumps(request).encode()], fds)
    answer = asking.recv(16)
    assert answer, "the process that forks has ended; what it said stands above"
    child.pid = int(answer)

    def hear() -> None:
        with asking:
            child.end(int(asking.recv(16) or -signal.SIGKILL))

    threading.Thread(target=hear, daemon=True, name=f"fork {child.pid}").start()
    return child


def run(
    arguments: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    script: Path | None = None,
    cwd: Path | None = None,
    timeout_seconds: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Runs `coordinator ARGUMENTS`, or `script` with these arguments, to its end. On a timeout it is killed and
    subprocess.TimeoutExpired is raised.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = start(arguments, env=env, out=out, errors=errors, script=script, cwd=cwd)
        try:
            code = child.wait(timeout_seconds)
        finally:
            child.kill()
        outputs = []
        for file in (out, errors):
            file.seek(0)
            outputs.append(file.read().decode())
    return subprocess.CompletedProcess([*map(str, arguments)], code, *outputs)
