"""Faults of the contract's text on the disk."""

from __future__ import annotations

import json

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import CONTRACT, ScratchNode


def _broken(node: ScratchNode) -> None:
    node.stop()
    node.contract_file.write_text(CONTRACT + "CONTRACT = CONTRACT.of(\n", encoding="utf-8")
    node.go_on()
    listed = json.loads(node.command("contract", "list", "--json").stdout)
    if "SyntaxError" not in listed["on_disk"]:
        raise DrillFailedError(f"`contract list` does not say what is wrong: {listed['on_disk']}")


def _mended(node: ScratchNode) -> None:
    node.contract_file.write_text(CONTRACT, encoding="utf-8")


DRILLS = (
    Drill(
        name="contract-broken",
        breaks="The contract's file is broken (a syntax error), and the node is started again.",
        holds="The node continues with the applied contract, and `coordinator contract list` shows the error.",
        inject=_broken,
        end=_mended,
        ends_by="Repair the file. Nothing else has to be done.",
    ),
)
