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
from coordinator.streams.predictions.frames import TABLE, frame_of, takes_table
from coordinator.streams.predictions.sendable import as_json, sendable

LENGTH = struct.Struct(">I")
READ_BYTES = 1 << 16
"""What a pipe holds. More in one read costs a large buffer each time, which is given back to the system at once."""


class Question(msgspec.Struct, frozen=True):
    """One round: the method and arguments of its tick, the method of a prediction, the arguments of each, and where the
    table is that goes with the tick.
    """

    tick: str
    tick_values: list[Any]
    predict: str
    predict_values: list[list[Any]]
    table: str = ""


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


class Receiver:
    """The messages that come out of a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._came = bytearray()

    def read(self) -> bool:
        """Take what is in the pipe, and wait if nothing is. False at its end."""
        part = os.read(self._fd, READ_BYTES)
        self._came += part
        return bool(part)

    def whole(self) -> bytes | None:
        """The next message if it has arrived completely, otherwise None."""
        came = self._came
        if len(came) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(came)[0]
        if len(came) < end:
            return None
        message = bytes(memoryview(came)[LENGTH.size : end])
        del came[:end]
        return message


def _made(folder: Path, base_classname: str) -> tuple[Any, str]:
    """(the model, "") or (None, what is wrong with it)."""
    try:
        return find_model_class(folder, import_base_class(base_classname))(), ""
    except (UnknownBaseClassError, BadImplementationError) as error:
        return None, str(error)
    except ModelFault as error:
        traceback.print_exc()
        return None, f"its construction failed: {told(error)}"


def _called(model: Any, name: str, values: list[Any], table: str = "", *, looked_at: bool = True) -> Answer:
    try:
        method = method_of(model, name)
    except BadImplementationError as error:
        return Answer(fault=str(error))
    try:
        keywords = {TABLE: frame_of(table)} if table and takes_table(method) else {}
        output = method(*values, **keywords)
        return Answer(packed(output) if looked_at else "null")
    except (*ModelFault, RecursionError) as error:
        traceback.print_exc()
        return Answer(fault=told(error))


def _answered(model: Any, question: Question) -> Answered:
    began = time.perf_counter_ns()
    tick = _called(model, question.tick, question.tick_values, question.table, looked_at=False)
    predicts = (
        [] if tick.fault else [_called(model, question.predict, values) for values in question.predict_values]
    )
    return Answered(tick, predicts, (time.perf_counter_ns() - began) // 1000)


def _next(receiver: Receiver) -> bytes | None:
    """The next message; None at the end of the pipe."""
    while (message := receiver.whole()) is None:
        if not receiver.read():
            return None
    return message


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
    ]  # as in the host: no module of the model replaces a library of the host
    pid = os.getpid()
    model, fault = _made(Path(folder), base_classname)
    questions = msgspec.json.Decoder(Question)
    encode = msgspec.json.Encoder().encode
    send(int(writing), fault.encode())
    receiver = Receiver(int(reading))
    while model is not None and (message := _next(receiver)) is not None:
        answered = _answered(model, questions.decode(message))
        if os.getpid() != pid:
            os._exit(0)  # a fork of the model's returned: the answer is that of the process which was asked
        send(int(writing), encode(answered))


if __name__ == "__main__":
    main()
