"""The rules in words, made in a process of their own: a contract's module that hangs ends that process alone.

The report worker asks it (`api/rules.py`). `python -m coordinator.infra.rules` is the child: it reads the settings and
the terms from its standard input, and writes the sections as JSON, since the author's code runs where they are made.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import msgspec

from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.streams.contract.rules import Circumstances, rules_of
from coordinator.streams.contract.rules.text_parts import Section
from coordinator.streams.events import Terms
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings

SECONDS_MAX = 60.0


class ChildReply(msgspec.Struct):
    """What the child says: the sections, or why there are none."""

    sections: list[Section] = []
    fault: str = ""


def rules_in_force(settings: Settings, terms: Terms, seconds_max: float = SECONDS_MAX) -> list[Section]:
    """The rules of the contract that the terms name.

    Raises WorldError if the contract cannot be had, or if its module does not come to an end in time.
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(
            command,
            input=pickle.dumps((settings, terms)),
            stdout=subprocess.PIPE,
            timeout=seconds_max,
            check=False,
        )
        result = msgspec.json.decode(done.stdout, type=ChildReply)
    except subprocess.TimeoutExpired as error:
        raise WorldError(f"the contract's code did not end within {seconds_max:g} s") from error
    except msgspec.DecodeError as error:
        raise WorldError("the contract's code ended the process that ran it") from error
    if result.fault:
        raise WorldError(result.fault)
    return result.sections


def circumstances(crunch_id: str, terms: Terms) -> Circumstances:
    """What the log says in addition to the contract."""
    return Circumstances(
        crunch_id=crunch_id,
        subjects=tuple(terms.subjects),
        snapshot_interval_seconds=terms.snapshot_interval_ms // 1000,
        checkpoint_interval_seconds=terms.checkpoint_interval_ms // 1000,
        checkpoint_offset_seconds=terms.checkpoint_offset_ms // 1000,
    )


def main() -> None:
    """The child."""
    answer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # what the author's code prints is no answer
    settings, terms = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - of the process that started this one
    try:
        contract = NodeContracts(settings).shelf(terms.contract_hash)
        result = ChildReply(rules_of(contract, circumstances(settings.crunch_id, terms)))
    except (OperatorError, WorldError) as error:
        result = ChildReply(fault=str(error))
    answer.write(msgspec.json.encode(result))
    answer.close()


if __name__ == "__main__":
    main()
