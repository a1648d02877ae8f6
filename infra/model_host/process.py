"""Starting and ending a model's process.

Reads a `ModelEntry`, emits a `Child` that serves on a port. Each start works on a fresh copy of the
submission, as a container would: what a model writes is gone with its process, and an edit of the
source does not reach a running model.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import cast

import msgspec

from coordinator.infra.model_host.logs import CappedLog
from coordinator.infra.model_host.registry import ModelEntry

IMPORT_ROOT = Path(__file__).parents[3]  # the folder that holds `coordinator/`
TERMINATE_SECONDS = 1.0
ENVIRONMENT_KEPT = ("PATH", "LANG", "HOME")


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one model's process. `restarts_max` within `restart_window_seconds`, then it is STOPPED."""

    call_limit_seconds: float = 30.0
    setup_limit_seconds: float = 120.0
    start_limit_seconds: float = 60.0
    memory_limit_mb: int = 2048
    log_bytes_max: int = 1024 * 1024
    restarts_max: int = 4
    restart_window_seconds: float = 300.0
    listen_address: str = "127.0.0.1"
    """Where it may be called. Another address than this machine's own is for a network that is trusted: the calls
    carry no key."""


class ChildFailedError(Exception):
    """A process ended, or was ended, before it served; the text says how."""


class Ready(msgspec.Struct, frozen=True):
    """What a child says once it serves."""

    port: int
    pid: int


class Child(asyncio.SubprocessProtocol):
    """A process that serves one model.

    A protocol and not asyncio's streams: there, a process counts as ended only once its stdout is
    closed, and something that the model started may hold that open long after the model died.
    """

    def __init__(self, log: CappedLog) -> None:
        self._log = log
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self.pid = 0
        self.port = 0

    async def wait(self) -> int:
        """Wait for the end; returns the exit code (negative: a signal)."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group, so that what the model started goes with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the process runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        """Called by asyncio: the model said something."""
        self._log.write(data)

    def process_exited(self) -> None:
        """Called by asyncio: the process ended; its last words may still be in the pipe."""
        self.signal(signal.SIGKILL)
        code = self._transport.get_returncode() if self._transport is not None else None
        self._ended.set_result(-1 if code is None else code)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by asyncio: the process ended and its output is read."""
        self._log.write(f"[host] process {self.pid} has ended\n".encode())
        self._log.close()


async def start_child(entry: ModelEntry, limits: Limits, log_dir: Path, copy: str = "") -> Child:
    """Start a process for `entry` and wait until it serves. Raises ChildFailedError.

    `copy` names a working copy of its own, for a process that runs beside the one it will replace.
    """
    folder = _fresh_copy(entry.folder, log_dir / "work" / f"{entry.model_id}{copy}")
    log = CappedLog(log_path(log_dir, entry.model_id), limits.log_bytes_max)
    reading, writing = os.pipe()
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: Child(log),
            *_command(folder, writing, limits),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(writing,),
            env=_environment(),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reading)
        log.close()
        raise ChildFailedError(f"could not be started: {error}") from error
    finally:
        os.close(writing)
    try:
        line = await asyncio.wait_for(_read_line(reading), limits.start_limit_seconds)
        child.port = msgspec.json.decode(line, type=Ready).port
    except (TimeoutError, msgspec.DecodeError):
        child.signal(signal.SIGKILL)
        raise ChildFailedError(f"did not serve; it ended with {await child.wait()}") from None
    except asyncio.CancelledError:
        child.signal(signal.SIGKILL)
        await child.wait()
        raise
    return child


async def end_child(child: Child) -> None:
    """End a child politely, then surely."""
    child.signal(signal.SIGTERM)
    ended = asyncio.create_task(child.wait())
    await asyncio.wait([ended], timeout=TERMINATE_SECONDS)
    child.signal(signal.SIGKILL)  # also whatever the model left in its process group
    await ended


def log_path(log_dir: Path, model_id: str) -> Path:
    """Where a model's stdout and stderr go."""
    return log_dir / f"{model_id}.log"


def _command(folder: Path, ready_fd: int, limits: Limits) -> list[str]:
    # -P: our own imports must not find files of the model's folder. -u: prints reach the log at once.
    return [
        *(sys.executable, "-P", "-u", "-m", "coordinator.infra.model_host.child"),
        *("--folder", str(folder), "--ready-fd", str(ready_fd), "--parent-pid", str(os.getpid())),
        *("--call-limit-seconds", str(limits.call_limit_seconds)),
        *("--setup-limit-seconds", str(limits.setup_limit_seconds)),
        *("--memory-limit-mb", str(limits.memory_limit_mb)),
        *("--listen", limits.listen_address),
    ]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    paths = [str(IMPORT_ROOT), os.environ.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _fresh_copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "resources"))
    if (source / "resources").is_dir():
        (target / "resources").symlink_to(source / "resources")  # weights can be large: never copied
    return target


async def _read_line(fd: int) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
