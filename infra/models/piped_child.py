"""One model in one process behind two pipes, without gRPC: what a backtest asks on a participant's own machine.

Reads one JSON object a round (`Question`) on one pipe, writes one (`Answered`) on another; stdout and stderr are the
model's own. The class is found, made and called as the model host does it (`host/child.py`), and an answer is packed
by the same rules, so that it is the same answer.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.models.host.discovery import (
    BadImplementationError,
    ModelFault,
    UnknownBaseClassError,
    find_model_class,
    import_base_class,
    method_of,
)
from coordinator.infra.models.host.limits import die_with_parent, limit_resources
from coordinator.infra.models.host.refusals import told
from coordinator.streams.predictions.sendable import as_json, sendable

LENGTH = struct.Struct(">I")


class Question(msgspec.Struct, frozen=True):
    """One round: the method and arguments of its tick, the method of a prediction, the arguments of each."""

    tick: str
    tick_values: list[Any]
    predict: str
    predict_values: list[list[Any]]


class Answer(msgspec.Struct, frozen=True):
    """What one call came to: `output` is JSON, or `fault` says what the model did instead."""

    output: str = "null"
    fault: str = ""


class Answered(msgspec.Struct, frozen=True):
    """The whole round. `tick` has no output; after its fault nothing else is asked. `us` is the model's own time."""

    tick: Answer
    predicts: list[Answer]
    us: int


def packed(value: Any) -> str:
    """A model's answer as JSON, in which a bool alone is a number, as on the node's wire. Raises VariantError for what
    cannot be sent.
    """
    value = sendable(value)
    return as_json(value) if isinstance(value, dict | list) else json.dumps(value)


def send(fd: int, message: bytes) -> None:
    """One message with its length before it."""
    data = memoryview(LENGTH.pack(len(message)) + message)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> bytes:
    """The next message; empty at the end of the pipe."""
    head = _exactly(fd, LENGTH.size)
    return _exactly(fd, LENGTH.unpack(head)[0]) if head else b""


def _exactly(fd: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _made(folder: Path, base_classname: str) -> tuple[Any, str]:
    """(the model, "") or (None, what is wrong with it)."""
    try:
        return find_model_class(folder, import_base_class(base_classname))(), ""
    except (UnknownBaseClassError, BadImplementationError) as error:
        return None, str(error)
    except ModelFault as error:
        traceback.print_exc()
        return None, f"its construction failed: {told(error)}"


def _called(model: Any, name: str, values: list[Any], *, looked_at: bool = True) -> Answer:
    try:
        method = method_of(model, name)
    except BadImplementationError as error:
        return Answer(fault=str(error))
    try:
        output = method(*values)
        return Answer(packed(output) if looked_at else "null")
    except (*ModelFault, RecursionError) as error:
        traceback.print_exc()
        return Answer(fault=told(error))


def _answered(model: Any, question: Question) -> Answered:
    began = time.perf_counter_ns()
    tick = _called(model, question.tick, question.tick_values, looked_at=False)
    predicts = (
        [] if tick.fault else [_called(model, question.predict, values) for values in question.predict_values]
    )
    return Answered(tick, predicts, (time.perf_counter_ns() - began) // 1000)


def main() -> None:
    """FOLDER BASE_CLASS MEMORY_MB PARENT_PID IN OUT: answer until the pipe ends."""
    folder, base_classname, memory_mb, parent_pid, reading, writing = sys.argv[1:]
    die_with_parent(int(parent_pid))
    limit_resources(int(memory_mb))
    theirs = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [
        folder,
        *sys.path,
        *theirs,
    ]  # as the host has it: none of theirs stands in for a library of ours
    model, fault = _made(Path(folder), base_classname)
    questions = msgspec.json.Decoder(Question)
    encode = msgspec.json.Encoder().encode
    send(int(writing), fault.encode())
    while model is not None and (message := receive(int(reading))):
        send(int(writing), encode(_answered(model, questions.decode(message))))


if __name__ == "__main__":
    main()
