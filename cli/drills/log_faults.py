"""Faults of what is on the disk: a read model."""

from __future__ import annotations

from pathlib import Path

from coordinator.cli.drills.drill import Drill
from coordinator.cli.drills.scratch import ScratchNode, remove

STORE = "leaderboard"


def _spoil(path: Path) -> None:
    """Write over the middle of a file."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(size // 3)
        file.write(b"\xff" * max(1, size // 3))


def _store_corrupt(node: ScratchNode) -> None:
    node.stop()
    for path in (node.data_dir / "projections" / STORE).rglob("*"):
        if path.is_file():
            _spoil(path)
    node.launch()


def _delete_aside(node: ScratchNode) -> None:
    for path in (node.data_dir / "projections").glob(f"{STORE}*damaged*"):
        remove(path)


DRILLS = (
    Drill(
        name="store-corrupt",
        breaks="The files of a read model are written over.",
        alert="store",
        inject=_store_corrupt,
        end=_delete_aside,
        ends_by="Look at the disk, then delete the folder that the text names.",
    ),
)
