"""The parts of a check-up: one finding for each thing that is looked at, and the checks of the machine.

Reads the machine (commands, ports, memory, disk) and changes nothing. A check that could not be made does not
pass: "all is well" must never mean "I do not know".
"""

from __future__ import annotations

import asyncio
import enum
import json
import shutil
from pathlib import Path

import msgspec
import psutil

from coordinator.cli.up_plan import HOST, port_is_free
from coordinator.infra.processes.open_files import OPEN_FILES_WANTED, allow_open_files, too_few_open_files

COMMAND_SECONDS_MAX = 20.0
GIB = 1024**3
MIB = 1024**2
NODE_MEMORY_BYTES = 2 * GIB
"""Kafka's Java takes about 550 MB, five workers about 200 MB each, and the system wants some."""
MODEL_MEMORY_BYTES = 100 * MIB
DISK_BYTES_MIN = 5 * GIB
"""Images and runtimes take 1.5 GB. The rest is the log, which is never deleted."""


class State(enum.StrEnum):
    """How a check went. UNKNOWN: it could not be made, which counts as a fault. SKIPPED: the operator left it out."""

    OK = "ok"
    FAULT = "fault"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """`says` is what was seen, `do` what to change (empty when nothing is to be done)."""

    check: str
    state: State
    says: str
    do: str = ""

    @property
    def bad(self) -> bool:
        """Whether the check-up fails for it."""
        return self.state in {State.FAULT, State.UNKNOWN}


async def docker() -> Finding:
    """Whether a container engine answers."""
    if shutil.which("docker") is None:
        return Finding(
            "docker",
            State.FAULT,
            "there is no `docker` command",
            "install Docker Engine, or run the node without it: coordinator up (then: --skip docker --skip compose)",
        )
    code, out, err = await command("docker", "version", "--format", "{{json .}}")
    if code != 0:
        return Finding(
            "docker",
            State.FAULT,
            f"the engine does not answer: {last_line(err or out)}",
            "start it (systemctl start docker), and let this user use it (group docker)",
        )
    try:
        server = json.loads(out)["Server"]["Version"]
    except (ValueError, KeyError, TypeError):
        return Finding("docker", State.UNKNOWN, f"`docker version` says {out[:80]!r}", "see `docker version`")
    return Finding("docker", State.OK, f"engine {server} answers")


async def compose(folder: Path) -> Finding:
    """Whether compose v2 is there, and can read the compose file of `folder` if that has one."""
    if shutil.which("docker") is None:
        return Finding(
            "compose", State.FAULT, "there is no `docker` command", "install Docker Engine with compose"
        )
    code, out, err = await command("docker", "compose", "version", "--short")
    if code != 0:
        return Finding(
            "compose",
            State.FAULT,
            f"`docker compose` does not run: {last_line(err or out)}",
            "install the compose plugin (Debian, Ubuntu: docker-compose-plugin)",
        )
    version = out.strip()
    files = [
        name for name in ("compose.yml", "compose.yaml", "docker-compose.yml") if (folder / name).is_file()
    ]
    if not files:
        return Finding("compose", State.OK, f"compose {version}; no compose file here to try it on")
    code, _, err = await command("docker", "compose", "config", "--quiet", cwd=folder)
    if code != 0:
        return Finding(
            "compose",
            State.FAULT,
            f"{files[0]} cannot be used: {last_line(err)}",
            f"correct {files[0]} or .env",
        )
    return Finding("compose", State.OK, f"compose {version} reads {files[0]}")


def memory(models: int, available_bytes: int, total_bytes: int) -> Finding:
    """Whether there is memory for a node with so many models. `available_bytes`: free without swapping."""
    bytes_needed = NODE_MEMORY_BYTES + models * MODEL_MEMORY_BYTES
    says = (
        f"{available_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB are free, {bytes_needed / GIB:.1f} are wanted "
        f"(a node, and {models} models at {MODEL_MEMORY_BYTES // MIB} MiB)"
    )
    if available_bytes >= bytes_needed:
        return Finding("memory", State.OK, says)
    return Finding(
        "memory", State.FAULT, says, "stop other programs, use fewer models, or use a larger machine"
    )


def disk(folder: Path, free_bytes: int) -> Finding:
    """Whether there is room for the log, which is never deleted."""
    says = f"{free_bytes / GIB:.1f} GiB are free for {folder}, {DISK_BYTES_MIN / GIB:g} are wanted"
    if free_bytes >= DISK_BYTES_MIN:
        return Finding("disk", State.OK, says)
    return Finding("disk", State.FAULT, says, "free some space: nothing in the log is ever deleted")


async def open_files() -> Finding:
    """Whether a node that is started from this shell may open enough files and sockets."""
    allowed = allow_open_files()
    if allowed >= OPEN_FILES_WANTED:
        return Finding("open files", State.OK, f"{allowed} are allowed, {OPEN_FILES_WANTED} are wanted")
    how = f"ulimit -Hn {OPEN_FILES_WANTED} as root, or LimitNOFILE={OPEN_FILES_WANTED} of its service"
    return Finding("open files", State.FAULT, too_few_open_files(allowed), how)


def free_port(port: int, whose: str, variable: str) -> Finding:
    """Whether somebody can listen on `port` of this machine now."""
    if port_is_free(port):
        return Finding(f"port {port}", State.OK, f"free for {whose}")
    return Finding(
        f"port {port}",
        State.FAULT,
        f"another process listens on {HOST}:{port}, which {whose} needs",
        f"stop it, or choose another port with {variable}",
    )


async def ports(purpose_of_port: dict[int, tuple[str, str]]) -> list[Finding]:
    """Whether the ports are free. `purpose_of_port`: port -> (what it is for, the variable that names another)."""
    return [free_port(port, whose, variable) for port, (whose, variable) in purpose_of_port.items()]


async def memory_here(models_dir: Path) -> Finding:
    """`memory`, of this machine now."""
    machine_memory = psutil.virtual_memory()
    return memory(
        await asyncio.to_thread(_count_models, models_dir), machine_memory.available, machine_memory.total
    )


async def disk_here(data_dir: Path) -> Finding:
    """`disk`, of the file system that `data_dir` is on or will be on."""
    return await asyncio.to_thread(_disk_here, data_dir)


def _count_models(models_dir: Path) -> int:
    return len(list(models_dir.glob("*/main.py")))


def _disk_here(data_dir: Path) -> Finding:
    folder = data_dir.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return disk(there, shutil.disk_usage(there).free)


async def command(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command; 124 when it takes longer than 20 s."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS_MAX):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 124, "", f"`{' '.join(arguments)}` did not end within {COMMAND_SECONDS_MAX:g} s"
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def last_line(text: str) -> str:
    """The last line that is not empty: commands print their reason last."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
