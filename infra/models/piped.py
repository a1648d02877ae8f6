"""Models of folders, each in a process of its own behind pipes: no gRPC, no ports, no orchestrator.

For whoever plays many rounds on one's own machine. A process works on a fresh copy of its folder, dies with its parent,
has a ceiling of memory, and what it prints goes to a log of bounded size. One that hangs is ended and begun anew.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from coordinator.infra.models.host.folder import ModelEntry
from coordinator.infra.models.host.process import ENVIRONMENT_KEPT, SCRATCH, fresh_copy, log_path
from coordinator.infra.models.piped_child import Answered, Question, receive, send
from coordinator.infra.rotated_log import RotatedLog

LOG_BYTES_MAX = 1024 * 1024
SETUP_SECONDS_MAX = 120.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answered).decode


class GoneError(Exception):
    """The process ended, or was ended; the text says how."""


class BadModelError(Exception):
    """There is no model in the folder that can be made; the text says why."""


class PipedModel:
    """One model's process. `start` first; `ask`, then `answer` for each round."""

    def __init__(self, entry: ModelEntry, base_classname: str, work_dir: Path, memory_limit_mb: int) -> None:
        self.entry = entry
        self._base_classname, self._work_dir, self._memory_limit_mb = (
            base_classname,
            work_dir,
            memory_limit_mb,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._to = self._from = -1

    def start(self) -> None:
        """Begin a new process on a fresh copy. Raises BadModelError, OSError for a folder that cannot be copied."""
        folder = fresh_copy(self.entry.folder, self._work_dir / "work" / self.entry.model_id)
        their_in, self._to = os.pipe()
        self._from, their_out = os.pipe()
        scratch = str(folder / SCRATCH)
        environment = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-Iu", "-m", "coordinator.infra.models.piped_child"),
                    *(str(folder), self._base_classname, str(self._memory_limit_mb), str(os.getpid())),
                    *(str(their_in), str(their_out)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(their_in, their_out),
                cwd=folder,
                env=environment | {"HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": _importable()},
                start_new_session=True,
            )
        finally:
            os.close(their_in)
            os.close(their_out)
        log = RotatedLog(log_path(self._work_dir, self.entry.model_id), LOG_BYTES_MAX // 2)
        threading.Thread(target=_keep_said, args=(self._process, log), daemon=True).start()
        if not self._readable(SETUP_SECONDS_MAX):
            self.end()
            raise BadModelError(f"its construction took longer than {SETUP_SECONDS_MAX:g} s")
        head = _read_first(self._from)
        if head is None or head:
            why = head.decode(errors="replace") if head else f"its process ended with {self._ended()}"
            self.end()
            raise BadModelError(why)

    def ask(self, question: bytes) -> None:
        """Send a round (`encoded`). Raises GoneError."""
        try:
            send(self._to, question)
        except OSError:
            raise GoneError(f"its process ended with {self._ended()}") from None

    def answer(self, until: float) -> Answered:
        """The answer to what was asked. Raises TimeoutError past `until` (monotonic s), GoneError."""
        if not self._readable(max(0.0, until - time.monotonic())):
            raise TimeoutError
        message = receive(self._from)
        if not message:
            raise GoneError(f"its process ended with {self._ended()}")
        return _decode(message)

    def end(self) -> None:
        """End the process, and what it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            os.close(self._to)
            os.close(self._from)

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _ended(self) -> int | None:
        return None if self._process is None else self._process.wait()


def _importable() -> str:
    """Where the caller finds modules, as PYTHONPATH: a model may import what stands beside it, as its base class."""
    return os.pathsep.join(str(Path(path).absolute()) for path in sys.path)


def encoded(question: Question) -> bytes:
    """The message of a round, once for all models."""
    return _encode(question)


def _read_first(fd: int) -> bytes | None:
    """What a process says once its model is made: nothing, or what is wrong; None where it ended before."""
    head = os.read(fd, 4)
    if len(head) < 4:  # noqa: PLR2004 - the length of a message
        return None
    length = int.from_bytes(head, "big")
    return os.read(fd, length) if length else b""


def _keep_said(process: subprocess.Popen[bytes], log: RotatedLog) -> None:
    said = process.stdout
    assert said is not None  # noqa: S101 - it is a pipe
    with contextlib.closing(log), said:
        while data := os.read(said.fileno(), 65_536):
            log.write(data)
