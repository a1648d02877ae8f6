"""A disk that is full, and a disk that is slow: the data directory lies on a file system of its own.

The full one is in memory, and a file fills it up. The slow one is ext4 on a loop device, whose writes the kernel holds
back: each fsync takes seconds, as on a volume that has used up its allowance, or on a disk that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import ScratchNode
from coordinator.infra.disk import FULL

DISK_MB = 600
PIECE_BYTES = 1_000_000
FULL_SECONDS_MAX = 60.0
FULL_WORDS = "is full: make room"
SLOW_DISK_MB = 2_000
SLOW_WRITES_PER_SECOND = 15
THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device")
"""Cgroups v1: `MAJOR:MINOR WRITES` bounds the writes of a block device a second, for the whole machine; 0 ends it."""


def _needs_root() -> str:
    return "" if os.geteuid() == 0 else "it mounts a file system, which needs root"


def _needs_throttle() -> str:
    if reason := _needs_root():
        return reason
    if not THROTTLE.exists():
        return f"nothing here slows a disk down: there is no {THROTTLE} (cgroups v1)"
    missing = [name for name in ("mkfs.ext4", "losetup") if shutil.which(name) is None]
    return f"it needs {missing[0]}" if missing else ""


def _tool(*arguments: object) -> str:
    done = subprocess.run([str(part) for part in arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DrillFailedError(f"{arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _mounted(node: ScratchNode, *arguments: object) -> None:
    """Mount a file system on the data directory, until the drill is over."""
    _tool("mount", *arguments, node.data_dir)

    def unmount() -> None:
        node.stop()
        _tool("umount", "--lazy", node.data_dir)

    node.left_over.append(unmount)


def _own_disk(node: ScratchNode) -> None:
    _mounted(node, "-t", "tmpfs", "-o", f"size={DISK_MB}m", "coordinator-drill")


def _filled(node: ScratchNode) -> None:
    with (node.data_dir / "filler").open("wb", buffering=0) as file:
        while _written(file.fileno(), bytes(PIECE_BYTES)):
            pass
    node.until(lambda: FULL_WORDS in node.last_lines(), "Kafka has ended for want of room", FULL_SECONDS_MAX)


def _written(file: int, piece: bytes) -> bool:
    try:
        os.write(file, piece)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    return True


def _made_room(node: ScratchNode) -> None:
    (node.data_dir / "filler").unlink()


def _own_device(node: ScratchNode) -> None:
    image = node.folder / "disk.image"
    with image.open("wb") as file:
        file.truncate(SLOW_DISK_MB * 1_000_000)
    _tool("mkfs.ext4", "-q", "-F", image)
    _mounted(node, "-o", "loop", image)
    loop = Path(_tool("losetup", "--noheadings", "--output", "NAME", "--associated", image)).name
    node.notes["device"] = Path(f"/sys/class/block/{loop}/dev").read_text(encoding="ascii").strip()
    node.left_over.append(
        lambda: _slowed(node, 0)
    )  # first, because the unmount would wait for the slow writes


def _slowed(node: ScratchNode, writes_per_second: int) -> None:
    THROTTLE.write_text(f"{node.notes['device']} {writes_per_second}", encoding="ascii")


DRILLS = (
    Drill(
        name="disk-full",
        breaks=f"The file system of the data directory ({DISK_MB} MB) is filled to the last byte. Kafka ends.",
        alert="disk",
        cannot=_needs_root,
        prepare=_own_disk,
        inject=_filled,
        end=_made_room,
        ends_by="Free some disk space. The supervisor starts Kafka again, and the workers continue.",
    ),
    Drill(
        name="disk-slow",
        breaks=f"The disk of the data directory takes {SLOW_WRITES_PER_SECOND} writes a second: fsync takes seconds.",
        alert="disk",
        says="is slow",
        cannot=_needs_throttle,
        prepare=_own_device,
        inject=lambda node: _slowed(node, SLOW_WRITES_PER_SECOND),
        end=lambda node: _slowed(node, 0),
        ends_by="Make the disk fast again; the drill removes the limit. The node continues by itself.",
    ),
)
