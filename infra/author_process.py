"""Runs the functions of a contract in a process of their own: one that hangs, dies or eats memory ends only that.

The report worker asks it: `infra/explaining.py` for explanations, `infra/rounds/checking.py` for answers that are
handed in. The process is started by the first question and stays for the next ones, until nobody has asked for
IDLE_SECONDS. A question that it does not answer in time ends it, and the next question begins another one.

The child (`python -m` of the module that asks) reads the settings and then questions from its standard input, and
writes answers, each with its length before it. Before an answer it says that the contract is loaded, and the time for
the answer begins then: a slow start is not the fault of who asks. Questions are pickled by our own process; answers are
not, since the author's code runs where they are made.
"""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from coordinator.streams.log.errors import WorldError, text_of
from coordinator.streams.settings import Settings

START_SECONDS_MAX = 60.0
ANSWER_SECONDS_MAX = 10.0
IDLE_SECONDS = 300.0
ALONE_SECONDS_MAX = 60
"""When a contract that is not loaded, or a question that is not answered, ends the child by itself."""
ANSWER_BYTES_MAX = 256 * 1024 * 1024
MEMORY_BYTES_MAX = 4 * 1024**3
"""Limit of the child's data. An allocation above it fails in the child, and the worker beside it keeps its memory."""
LENGTH = struct.Struct("!Q")
READY = b"ready"


class UnansweredError(Exception):
    """The process did not answer. The message says why, as what the contract's code did."""


class AuthorProcess:
    """Call it from any thread: one question at a time. `close` ends the process."""

    def __init__(self, settings: Settings, module: str, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        """`module` has a `main` that calls `serve`, and runs it under `python -m`."""
        self._settings, self._module, self._seconds_max = settings, module, seconds_max
        self._child: subprocess.Popen[bytes] | None = None
        self._idle: threading.Timer | None = None
        self._lock = threading.Lock()

    def ask(self, question: Any) -> bytes:
        """The answer to a question, which is pickled. Raises UnansweredError, and WorldError if no process can be
        started or the contract is not loaded.
        """
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            try:
                return self._answered(pickle.dumps(question))
            finally:
                self._idle = threading.Timer(IDLE_SECONDS, self.close)
                self._idle.daemon = True
                self._idle.start()

    def close(self) -> None:
        """End the process; the next question starts another one."""
        with self._lock:
            self._end()

    def _answered(self, question: bytes) -> bytes:
        child = self._child or self._started()
        self._loaded(child, question)
        try:
            return _receive(child.stdout, self._seconds_max)
        except TimeoutError:
            why = f"did not end within {self._seconds_max:g} s"
        except (OSError, EOFError):
            why = "ended the process that ran it"
        self._end()
        raise UnansweredError(why)

    def _loaded(self, child: subprocess.Popen[bytes], question: bytes) -> None:
        """Hand over the question, and wait until the contract that it needs is loaded. Raises WorldError."""
        try:
            _send(child.stdin, question)
            if _receive(child.stdout, START_SECONDS_MAX) == READY:
                return
            why = "its process says something else than that it is ready"
        except TimeoutError:
            why = f"not within {START_SECONDS_MAX:g} s"
        except (OSError, EOFError):
            why = "that ended its process"
        self._end()
        raise WorldError(f"the contract could not be loaded: {why}")

    def _started(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._child = child
        try:
            _send(child.stdin, pickle.dumps(self._settings))
            if _receive(child.stdout, START_SECONDS_MAX) == READY:
                return child
        except (TimeoutError, OSError, EOFError) as error:
            self._end()
            raise WorldError(
                f"no process for the contract's functions could be started: {text_of(error)}"
            ) from error
        self._end()
        raise WorldError(
            "the process for the contract's functions sent an unexpected message instead of being ready"
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _send(pipe: IO[bytes] | None, body: bytes) -> None:
    if pipe is None:
        raise EOFError
    pipe.write(LENGTH.pack(len(body)) + body)
    pipe.flush()


def _receive(pipe: IO[bytes] | None, seconds_max: float) -> bytes:
    """The next body. Raises TimeoutError, EOFError for an end or a length that no answer has."""
    if pipe is None:
        raise EOFError
    until = time.monotonic() + seconds_max
    (length,) = LENGTH.unpack(_exactly(pipe.fileno(), LENGTH.size, until))
    if length > ANSWER_BYTES_MAX:
        raise EOFError
    return _exactly(pipe.fileno(), length, until)


def _exactly(descriptor: int, count: int, until: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(descriptor, count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def serve(prepare: Callable[[Settings], Callable[[Any], Callable[[], bytes]]]) -> None:
    """The child: answers until its input ends.

    What `prepare` makes takes a question, loads the contract that it needs, and returns what makes the answer.
    """
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what the author's code reads is no question, and what it prints is no answer
        os.dup2(nothing, standard)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES_MAX if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES_MAX, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    load = prepare(pickle.loads(_read(questions)))  # noqa: S301 - of the process that started this one
    _send(answers, READY)
    while body := _read(questions):
        question = pickle.loads(body)  # noqa: S301 - of the process that started this one
        signal.alarm(ALONE_SECONDS_MAX)  # whoever asked may be gone, and then nobody else ends what hangs
        answer = load(question)
        _send(answers, READY)
        signal.alarm(ALONE_SECONDS_MAX)
        _send(answers, answer())
        signal.alarm(0)


def _read(pipe: IO[bytes]) -> bytes:
    head = pipe.read(LENGTH.size)
    return pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
