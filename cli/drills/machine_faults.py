"""Faults of who else is on the machine: a second node."""

from __future__ import annotations

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import ScratchNode

OPERATOR_ERROR = 2


def _second_node(node: ScratchNode) -> None:
    """On the same data directory: refused by name."""
    second = node.command("up", "--for", "5", check=False)
    if second.returncode != OPERATOR_ERROR or "is in use by process" not in second.stderr:
        raise DrillFailedError(f"a second node was not refused: {second.returncode}, {second.stderr.strip()}")


DRILLS = (
    Drill(
        name="two-nodes",
        breaks="A second node is started on the same data directory.",
        holds="It is refused with exit code 2 and the id of the process that uses the directory.",
        inject=_second_node,
        ends_by="Nothing has to be done.",
    ),
)
