"""A full disk: the data directory lies on a file system of its own, in memory, and a file fills it up."""

from __future__ import annotations

import os
import subprocess

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import ScratchNode
from coordinator.infra.disk import FULL

DISK_MB = 600
PIECE_BYTES = 1_000_000
FULL_SECONDS_MAX = 60.0
FULL_WORDS = "is full: make room"


def _own_disk(node: ScratchNode) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "coordinator-drill", str(node.data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        raise DrillFailedError(f"this drill mounts a file system and needs root: {mounted.stderr.strip()}")

    def unmount() -> None:
        node.stop()
        subprocess.run(["umount", "--lazy", str(node.data_dir)], check=True)

    node.left_over.append(unmount)


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


DRILLS = (
    Drill(
        name="disk-full",
        breaks=f"The file system of the data directory ({DISK_MB} MB) is filled to the last byte. Kafka ends.",
        alert="disk",
        needs_root=True,
        prepare=_own_disk,
        inject=_filled,
        end=_made_room,
        ends_by="Make room. Kafka is started again by the supervisor, and the workers go on.",
    ),
)
