"""Faults of what lies beside the log: a read model, and the blobs that the log names."""

from __future__ import annotations

from pathlib import Path

from coordinator.cli.drills.drill import Drill
from coordinator.cli.drills.scratch import CONTRACT, ScratchNode, remove
from coordinator.cli.drills.topic_faults import BACKUP, restored
from coordinator.infra.blobs.folder import FOLDER as BLOBS
from coordinator.streams.clock import wall_ms

STORE = "leaderboard"
LARGE_MODEL = '''"""A model of a drill whose answers are so large that they are kept beside the log."""

import time

from coordinator.scaffolds.challenge.tracker import TrackerBase


class Model(TrackerBase):
    """Answers the same for twenty seconds."""

    def predict(self, subject, horizon_seconds, step_seconds):
        """More than a megabyte."""
        return {"value": 0.1, "more": f"{subject} {time.time() // 20:.0f} " + "x" * 1_100_000}
'''
LARGE_OUTPUT = '''
class Large(InferenceOutput):
    """An answer that may hold more."""

    more: str = ""


'''
WRITTEN_AGAIN_MS = 25_000
"""After so long a model says something else, and writes the same blob no more."""
BLOBS_MIN, BLOBS_SECONDS_MAX = 2, 120.0


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


def _with_large_answers(node: ScratchNode) -> None:
    node.write_model("large", LARGE_MODEL)
    text = CONTRACT.replace("import CrunchContract, ", "import CrunchContract, InferenceOutput, ")
    text = text.replace("CONTRACT = ", LARGE_OUTPUT + "CONTRACT = ")
    text = text.replace(
        "input_records=5,", "input_records=5,\n    output_type=Large,\n    output_max_bytes=2_000_000,"
    )
    node.contract_file.write_text(text, encoding="utf-8")


def _finished_blobs(node: ScratchNode) -> list[Path]:
    blobs = (node.data_dir / BLOBS).glob("[0-9a-f]" * 64)
    return [path for path in blobs if wall_ms() - path.stat().st_mtime * 1000 > WRITTEN_AGAIN_MS]


def _blobs_backed_up(node: ScratchNode) -> None:
    node.notes["blobs"] = node.until(
        lambda: len(finished := _finished_blobs(node)) >= BLOBS_MIN and finished,
        "large answers are kept beside the log",
        BLOBS_SECONDS_MAX,
    )
    node.command("topics", "backup", node.folder / BACKUP)


def _blobs_lost(node: ScratchNode) -> None:
    missing, altered, *_ = node.notes["blobs"]
    missing.unlink()
    _spoil(altered)


DRILLS = (
    Drill(
        name="store-corrupt",
        breaks="The files of a read model are overwritten.",
        alert="store",
        inject=_store_corrupt,
        end=_delete_aside,
        ends_by="Check the disk, then delete the folder that the alert names.",
    ),
    Drill(
        name="blob-lost",
        breaks="One of the large answers beside the log (blobs) is deleted, and another one is overwritten.",
        alert="blob",
        says="names it",
        prepare=_with_large_answers,
        before=_blobs_backed_up,
        inject=_blobs_lost,
        end=restored,
        ends_by="Stop the node, `coordinator topics restore FILE --data-dir DIR` from a backup, then `coordinator up`: "
        "the log does not change, and the blobs are restored.",
    ),
)
