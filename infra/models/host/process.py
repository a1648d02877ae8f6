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
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.models.host.installed_packages import installed
from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.infra.models.host.serving import Serving
from coordinator.infra.processes.fork_server import Forked, ForkServer
from coordinator.infra.rotated_log import RotatedLog
from coordinator.streams.log.errors import WorldError

TERMINATE_SECONDS = 1.0
ENVIRONMENT_KEPT = ("PATH", "PYTHONPATH", "LANG", "TZ")
RESOURCES = "resources"
SCRATCH = ".scratch"
"""A folder in the working copy that is the home and the folder for temporary files: a model writes nowhere else."""
COPY_BYTES_MAX = 1024 * 1024 * 1024
COPY_FILES_MAX = 20_000


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one model's process. `restarts_max` within `restart_window_seconds`, then it is STOPPED."""

    call_limit_seconds: float = 30.0
    setup_limit_seconds: float = 120.0
    start_limit_seconds: float = 60.0
    memory_limit_mb: int = 2048
    """The limit of each process of a model, and of all its processes together."""
    disk_limit_mb: int = 1024
    """The limit of all files that a model has written since its start."""
    processes_max: int = 64
    """The model's own process and those that it started."""
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
    confined: list[str] = []
    """What keeps the model from the rest of the machine, see `confine.py`; empty texts where the kernel has it not."""


class Child(asyncio.Protocol):
    """A process that serves one model; a protocol for what it says.

    It has ended when its process has: something that the model started may hold its stdout open long after that.
    """

    def __init__(self, log: RotatedLog, folder: Path) -> None:
        self._log = log
        self._ended: asyncio.Task[int] | None = None
        self.pid = 0
        self.port = 0
        self.folder = folder
        self.ended_for = ""
        """Why the host ended it, where it did."""
        self.confined: tuple[str, ...] = ()

    def runs(self, process: Forked) -> None:
        """It is this process from now on."""
        self.pid = process.pid
        self._ended = asyncio.create_task(self._until_ended(process))

    async def wait(self) -> int:
        """Wait for the end; returns the exit code (negative: a signal)."""
        assert self._ended is not None, "runs() comes first"  # noqa: S101
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group, so that what the model started goes with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def _until_ended(self, process: Forked) -> int:
        code = await process.wait()
        self.signal(signal.SIGKILL)
        return code

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: the model said something."""
        self._log.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by asyncio: the process ended and its output is read."""
        self._log.write(f"[host] process {self.pid} has ended\n".encode())
        self._log.close()


def child_server() -> ForkServer:
    """What models' processes are forked from: it has imported what each of them needs, and holds no secret."""
    # -I: our own imports find neither files of the model's folder nor what PYTHONPATH puts before them (an old
    # protobuf there ended every child). -u: prints reach the log at once.
    return ForkServer([sys.executable, "-Iu", "-m", "coordinator.infra.models.host.child"], _environment())


async def start_child(
    server: ForkServer, entry: ModelEntry, limits: Limits, log_dir: Path, copy: str = ""
) -> Child:
    """Start a process for `entry` and wait until it serves. Raises ChildFailedError.

    `copy` names a working copy of its own, for a process that runs beside the one it will replace.
    """
    work = log_dir / "work" / f"{entry.model_id}{copy}"
    try:
        folder = await asyncio.to_thread(fresh_copy, entry.folder, work)
    except OSError as error:  # shutil.Error is one, with a list of (from, to, why)
        raise ChildFailedError(f"could not be copied: {_why_not_copied(error)}") from error
    try:
        child = Child(RotatedLog(log_path(log_dir, entry.model_id), limits.log_bytes_max // 2), folder)
    except OSError as error:  # no room for a log, no file left to open
        raise ChildFailedError(f"could not be started: {error}") from error
    scratch = str(folder / SCRATCH)
    request = {
        "name": f"model-{entry.model_id}",
        "serving": _serving(folder, limits, (entry.folder / RESOURCES).resolve())._asdict(),
        "environ": _environment() | {"HOME": scratch, "TMPDIR": scratch},
        "cwd": str(folder),
    }
    try:
        ready_fd = await _forked(server, request, child)
    except (OSError, WorldError) as error:
        child.connection_lost(None)
        raise ChildFailedError(f"could not be started: {error}") from error
    try:
        async with asyncio.timeout(limits.start_limit_seconds):
            line = await _read_line(ready_fd)
        ready = msgspec.json.decode(line, type=Ready)
        child.port, child.confined = ready.port, tuple(limit for limit in ready.confined if limit)
    except (TimeoutError, msgspec.DecodeError):
        child.signal(signal.SIGKILL)
        raise ChildFailedError(f"did not start to serve; it ended with {await child.wait()}") from None
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


async def _forked(server: ForkServer, request: dict[str, Any], child: Child) -> int:
    """Fork it; the reading end of the pipe on which it says that it serves. Raises OSError, WorldError."""
    with ExitStack() as ends:
        ours: list[int] = []

        def pipe() -> int:
            reading, writing = os.pipe()
            ours.append(reading)
            ends.callback(os.close, writing)
            return writing

        stdin = os.open(os.devnull, os.O_RDONLY)
        ends.callback(os.close, stdin)
        try:
            output, ready = pipe(), pipe()
            child.runs(await server.fork(request, (stdin, output, output, ready)))
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
    reads_said, reads_ready = ours
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: child, os.fdopen(reads_said, "rb", buffering=0))
    return reads_ready


def _serving(folder: Path, limits: Limits, resources: Path) -> Serving:
    readable, listable = installed()
    return Serving(
        folder=str(folder),
        listen=limits.listen_address,
        call_limit_seconds=limits.call_limit_seconds,
        setup_limit_seconds=limits.setup_limit_seconds,
        memory_limit_mb=limits.memory_limit_mb,
        disk_limit_mb=limits.disk_limit_mb,
        readable=[str(path) for path in (*readable, resources)],
        path=[path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path],
        listable=[str(path) for path in listable],
    )


def _environment() -> dict[str, str]:
    """The few variables that a model's process gets: none of the node's, whose values may be secrets."""
    return {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}


def fresh_copy(source: Path, target: Path) -> Path:
    """A copy of the submission, without what is no file of its own: links stay links, and lead nowhere it may read.

    Raises OSError for what cannot be copied, or is more than a submission may hold.
    """
    shutil.rmtree(target, ignore_errors=True)
    left = [COPY_FILES_MAX, COPY_BYTES_MAX]

    def copy(path: str, to: str) -> None:
        size = _size_of_file(path)
        left[0] -= 1
        left[1] -= size
        if min(left) < 0:
            raise OSError(f"{source} holds more than {COPY_FILES_MAX} files or {COPY_BYTES_MAX >> 20} MiB")
        shutil.copyfile(path, to)
        shutil.copymode(path, to)

    if (
        source / RESOURCES
    ).is_symlink():  # the model may read all below it: a link would name any folder for that
        raise OSError(f"{source / RESOURCES} is a link: copy the files themselves into it")
    ignored = shutil.ignore_patterns("__pycache__", RESOURCES, SCRATCH)
    shutil.copytree(source, target, symlinks=True, ignore=ignored, copy_function=copy)
    (target / SCRATCH).mkdir()
    if (source / RESOURCES).is_dir():
        (target / RESOURCES).symlink_to(source / RESOURCES)  # weights can be large: never copied
    return target


def _size_of_file(path: str) -> int:
    """Raises OSError for a pipe, a socket or a device, because reading one could block without end."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no file")
    return status.st_size


def _why_not_copied(error: OSError) -> str:
    if isinstance(error, shutil.Error):
        return "; ".join(str(why) for _, _, why in error.args[0][:3])
    return str(error)


async def _read_line(fd: int) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
