"""The key that signs the notes about the log has leaked."""

from __future__ import annotations

import json

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import ScratchNode

OLD, NEW = "old.policy", "new.policy"
NOTED_SECONDS_MAX = 120.0
HOLDS = (0, 4)
"""Exit codes of `verify`: everything holds; it does but for one unit of rounding."""


def _rotated(node: ScratchNode) -> None:
    rotated = json.loads(node.command("evidence", "rotate-key", "--json").stdout)
    for name, key in ((OLD, "old_key"), (NEW, "new_key")):
        (node.folder / name).write_text(rotated[key] + "\n", encoding="utf-8")
    node.until(lambda: _verifies(node, NEW), "a bundle is signed by the new key", NOTED_SECONDS_MAX)
    if not _verifies(node, OLD):
        raise DrillFailedError("who trusts the old key does not follow to the new one")


def _verifies(node: ScratchNode, policy: str) -> bool:
    bundle = node.folder / "latest.bundle"
    bundle.unlink(missing_ok=True)
    if node.command("bundle", "latest", "--out", bundle, check=False).returncode:
        return False
    return node.run("verify", bundle, "--policy", node.folder / policy).returncode in HOLDS


DRILLS = (
    Drill(
        name="key-leaked",
        breaks="The key that signs the notes has leaked. It is rotated at once (`coordinator evidence rotate-key`).",
        holds="The new key signs the note of the next checkpoint. Verifiers that trust the old key accept it.",
        inject=_rotated,
        ends_by="Publish the new public key, and tell everybody who verifies to replace the old one.",
    ),
)
