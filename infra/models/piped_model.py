"""Models of folders, each in a process of its own behind pipes: no gRPC, no ports, no orchestrator.

For playing many rounds on one machine. A process works on a fresh copy of its folder, dies with its parent, has a
memory limit, and its output goes to a log of bounded size. One that hangs is ended and restarted.
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

from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.infra.models.host.process import ENVIRONMENT_KEPT, SCRATCH, fresh_copy, log_path
from coordinator.infra.models.piped_child import Answered, Question, Receiver, send
from coordinator.infra.rotated_log import RotatedLog
from coordinator.streams.log.errors import UNREADABLE_JSON

LOG_BYTES_MAX = 1024 * 1024
SETUP_SECONDS_MAX = 120.0
REST_SECONDS = 1.0
"""How long the next piece of a message may take."""

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
        self._answers = Receiver(-1)
        self._poll = select.poll()

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
        self._answers, self._poll = Receiver(self._from), select.poll()
        self._poll.register(self._from, select.POLLIN)
        log = RotatedLog(log_path(self._work_dir, self.entry.model_id), LOG_BYTES_MAX // 2)
        threading.Thread(target=_keep_said, args=(self._process, log), daemon=True).start()
        try:
            fault = self._next(time.monotonic() + SETUP_SECONDS_MAX).decode(errors="replace")
        except TimeoutError:
            fault = f"its construction took longer than {SETUP_SECONDS_MAX:g} s"
        except GoneError as error:
            fault = str(error)
        if fault:
            self.end()
            raise BadModelError(fault)

    def ask(self, question: bytes) -> None:
        """Send a round (`encoded`). Raises GoneError."""
        try:
            send(self._to, question)
        except OSError:
            raise GoneError(f"its process ended with {self._ended()}") from None

    def answer(self, until: float) -> Answered:
        """The answer to what was asked. Raises TimeoutError past `until` (monotonic s), GoneError."""
        try:
            return _decode(self._next(until))
        except UNREADABLE_JSON as error:  # the model's code wrote to the pipe
            raise GoneError(f"its process sent something that is not an answer: {error}") from error

    def end(self) -> None:
        """End the process, and what it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            os.close(self._to)
            os.close(self._from)

    def _next(self, until: float) -> bytes:
        """The next message of the process. One larger than the pipe comes in pieces, and the next piece only once this
        side has read the one before. So a message that began to come has REST_SECONDS for each piece, also past
        `until`: the caller may have waited for another process until then. But it need not come to its end, because the
        model's code can write to the pipe, too.
        """
        seconds_min = 0.0
        while (message := self._answers.whole()) is None:
            if not self._poll.poll(max(seconds_min, until - time.monotonic()) * 1000):
                raise TimeoutError
            if not self._answers.read():
                raise GoneError(f"its process ended with {self._ended()}")
            seconds_min = REST_SECONDS
        return message

    def _ended(self) -> int | None:
        return None if self._process is None else self._process.wait()


def _importable() -> str:
    """Where the caller finds modules, as PYTHONPATH: a model may import modules beside it, such as its base class."""
    return os.pathsep.join(str(Path(path).absolute()) for path in sys.path)


def encoded(question: Question) -> bytes:
    """The message of a round, once for all models."""
    return _encode(question)


def _keep_said(process: subprocess.Popen[bytes], log: RotatedLog) -> None:
    output = process.stdout
    assert output is not None  # noqa: S101 - it is a pipe
    with contextlib.closing(log), output:
        while data := os.read(output.fileno(), 65_536):
            log.write(data)
