"""Adds up what each model's processes use: the kernel bounds one process and one file, and not their number.

Reads `/proc` (elsewhere nothing is known, and nothing is ended) and the working copies; emits sentences.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from coordinator.infra.models.host.process import Limits

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MB = 1024 * 1024
GROUP, RESIDENT = 2, 21
"""Fields of `/proc/PID/stat` behind the name: the process group, and the pages in memory."""


class Usage(msgspec.Struct):
    """Use of one process group: the number of processes, and the bytes of memory that they hold."""

    processes: int = 0
    memory_bytes: int = 0


def usage_by_group(groups: Iterable[int], proc: Path) -> dict[int, Usage]:
    """What each of these process groups holds now. A model cannot leave its group (`confine.py`)."""
    usage_of_group = {group: Usage() for group in groups}
    for entry in proc.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if (usage := usage_of_group.get(int(fields[GROUP]))) is not None:
            usage.processes += 1
            usage.memory_bytes += int(fields[RESIDENT]) * PAGE_BYTES
    return usage_of_group


def written_bytes(folder: Path, bytes_max: int) -> int:
    """Bytes in a working copy. The walk ends once it has counted more than `bytes_max`."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118 - thousands of them
            except OSError:
                continue
        if total > bytes_max:
            break
    return total


def excesses(children: Mapping[str, tuple[int, Path]], limits: Limits, proc: Path = PROC) -> dict[str, str]:
    """model_id -> why it must end, for each model that uses too much. Models are given with process group and copy."""
    groups = usage_by_group((group for group, _ in children.values()), proc)
    reason_of_model: dict[str, str] = {}
    for model_id, (group, folder) in children.items():
        usage = groups[group]
        if usage.processes > limits.processes_max:
            reason_of_model[model_id] = (
                f"it runs {usage.processes} processes; {limits.processes_max} are allowed"
            )
        elif limits.memory_limit_mb and usage.memory_bytes > limits.memory_limit_mb * MB:
            reason_of_model[model_id] = (
                f"its {usage.processes} processes hold {usage.memory_bytes // MB} MB of memory; "
                f"{limits.memory_limit_mb} are allowed"
            )
        elif (
            limits.disk_limit_mb
            and written_bytes(folder, limits.disk_limit_mb * MB) > limits.disk_limit_mb * MB
        ):
            reason_of_model[model_id] = (
                f"it has written more than the {limits.disk_limit_mb} MB that are allowed"
            )
    return reason_of_model
