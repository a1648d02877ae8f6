"""`python -m MODULE` of the product as a fork (`forked.py`), where a test makes the product start it.

`monkeypatch.setattr(recompute, "subprocess", forked_modules)` lets that module of the product start its child so. Most
of what such a child costs are its imports. One test of each kind starts the real process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, TimeoutExpired
from typing import IO, Any

from tests.forked import ForkedProcess, start_with

__all__ = ["DEVNULL", "PIPE", "Popen", "TimeoutExpired"]


class Popen:
    """Those parts of `subprocess.Popen` that the product uses, for `[python, flags.., "-m", module, argument..]`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        start_new_session: bool = True,
    ) -> None:
        assert start_new_session  # as each fork has
        assert (stdout, stderr) in ((PIPE, DEVNULL), (PIPE, None))
        place = next(i for i, part in enumerate(command) if part.endswith("m") and part.startswith("-"))
        module, *arguments = command[place + 1 :]
        nothing = os.open(os.devnull, os.O_RDWR)
        reading, its_stdout = os.pipe()
        its_stdin, writing = os.pipe() if stdin == PIPE else (os.dup(nothing), None)
        try:
            self._child: ForkedProcess = start_with(
                {
                    "name": module.rpartition(".")[2],
                    "module": module,
                    "arguments": arguments,
                    "environ": dict(os.environ if env is None else env),
                    "cwd": cwd or str(Path.cwd()),
                },
                (its_stdin, its_stdout, nothing if stderr == DEVNULL else 2),
            )
        finally:
            for fd in (its_stdin, its_stdout, nothing):
                os.close(fd)
        self.pid = self._child.pid
        self.stdout: IO[bytes] = os.fdopen(reading, "rb")
        self.stdin: IO[bytes] | None = None if writing is None else os.fdopen(writing, "wb")

    @property
    def returncode(self) -> int | None:
        """The exit code if it has ended."""
        return self._child.returncode

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        return self._child.poll()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once it has ended."""
        return self._child.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, if it lives."""
        self._child.send_signal(signal.SIGKILL)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the stand-in for subprocess.Popen has no {name}")
