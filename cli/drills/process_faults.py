"""Faults of the node's own processes: workers and the broker stand, die, or are not let up."""

from __future__ import annotations

import signal
from collections.abc import Callable

from coordinator.cli.drills.drill import Drill
from coordinator.cli.drills.scratch import ScratchNode


def _stopped(name: str) -> Callable[[ScratchNode], None]:
    def inject(node: ScratchNode) -> None:
        node.signal(name, signal.SIGSTOP)
        node.left_over.append(lambda: node.signal(name, signal.SIGCONT))

    return inject


def _goes_on(name: str) -> Callable[[ScratchNode], None]:
    return lambda node: node.signal(name, signal.SIGCONT)


DRILLS = (
    Drill(
        name="broker-hangs",
        breaks="Kafka's process is stopped (SIGSTOP): it keeps its port and does not answer.",
        alert="kafka",
        inject=_stopped("kafka"),
        end=_goes_on("kafka"),
        ends_by="Start Kafka again; the drill wakes it up. The workers continue by themselves.",
    ),
    Drill(
        name="worker-killed",
        breaks="The score worker is killed each time it starts.",
        alert="worker",
        inject=lambda node: node.kill_in_a_loop("score"),
        end=ScratchNode.let_live,
        ends_by="Remove the cause. The supervisor starts the worker that the alert names.",
    ),
    Drill(
        name="report-stopped",
        breaks="The report worker's process is stopped (SIGSTOP), so it cannot report an alert.",
        alert="down",
        inject=_stopped("report"),
        end=_goes_on("report"),
        ends_by="Start the report worker. The supervisor does this by itself after a minute.",
        quick=True,
    ),
)
