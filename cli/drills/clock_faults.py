"""A clock that jumps: the Python processes of the scratch node read a clock that the drill moves."""

from __future__ import annotations

import sys
import time

from coordinator.cli.drills.drill import Drill
from coordinator.cli.drills.scratch import ScratchNode

MOVED = """
import sys, time
path, read, read_ns = {path!r}, time.time, time.time_ns

def moved_seconds():
    with open(path) as file:
        return int(file.read() or 0)

time.time = lambda: read() + moved_seconds()
time.time_ns = lambda: read_ns() + moved_seconds() * 1_000_000_000
from coordinator.cli.main import main
main()
"""
"""Runs a command with a clock that is as many seconds off as the file says. The workers are forks of `up`, and have it
too; Kafka, the model host and the models have the machine's clock."""
AHEAD_SECONDS, BEHIND_SECONDS = 3600, -1800
JUMP_SECONDS = 10


def _with_own_clock(node: ScratchNode) -> None:
    path = node.folder / "clock"
    path.write_text("0", encoding="utf-8")
    node.program = [sys.executable, "-Ic", MOVED.format(path=str(path))]


def _set(node: ScratchNode, seconds: int) -> None:
    whole = node.folder / "clock.new"
    whole.write_text(str(seconds), encoding="utf-8")
    whole.replace(node.folder / "clock")


def _jumps(node: ScratchNode) -> None:
    for seconds in (BEHIND_SECONDS, 0, AHEAD_SECONDS):
        _set(node, seconds)
        time.sleep(JUMP_SECONDS)


DRILLS = (
    Drill(
        name="clock-jumps",
        breaks="The clock of the node's processes jumps half an hour back, then to the right time, then an hour ahead.",
        alert="clock",
        prepare=_with_own_clock,
        inject=_jumps,
        end=lambda node: _set(node, 0),
        ends_by="Set the machine's clock (NTP). The node continues by itself.",
    ),
)
