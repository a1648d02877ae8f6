"""What a recorded log asked the models, and whether other rules would have asked the same. Pure.

Plans, shadows and corrections need it: nobody knows the answer to another question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import (
    AnyEvent,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
)


class AskedInputs:
    """What the recorded inputs asked, and how many inputs of the run ask something else."""

    def __init__(self, log: MemoryLog, from_ms: int, until_ms: int) -> None:
        self._from, self._until = from_ms, until_ms
        self._left: dict[str, str] = {}
        """input id -> what it asked, until the run asks it."""
        self.truths: dict[tuple[str, int], bytes] = {}
        """(input id, horizon in s) -> `truth_of` of the recorded truth."""
        for decision in log.walk("inputs"):
            for event in decision.events:
                if isinstance(event, InputReceived) and self._holds(event.data):
                    self._left[event.data.input_id] = question(event.data)
                elif isinstance(event, InputResolved):
                    self.truths[event.data.input_id, event.data.horizon_seconds] = truth_of(event.data)
        self._count = len(self._left)
        self._others = 0

    def __len__(self) -> int:
        return self._count

    @property
    def differ(self) -> int:
        """How many inputs differ: asked otherwise, asked only in the run, or asked only in the log."""
        return self._others + len(self._left)

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Compare the inputs of one decision of the run."""
        for event in events:
            if isinstance(event, InputReceived) and self._holds(event.data):
                recorded = self._left.pop(event.data.input_id, None)
                self._others += recorded != question(event.data)

    def _holds(self, data: InputReceivedData) -> bool:
        return data.point >= self._from and data.deadline_at < self._until


def question(data: InputReceivedData) -> str:
    """The SHA-256 of an input without the contract that scores it. Equal ones ask the models the same.

    The input itself shows hundreds of records: kept for each, a log of few models would be in memory twice.
    """
    asked = msgspec.msgpack.encode(msgspec.structs.replace(data, contract_hash=""))
    return hashlib.sha256(asked).hexdigest()


def truth_of(data: InputResolvedData) -> bytes:
    """What a score is computed from, as bytes: the truth, or the reason why there is none."""
    return msgspec.json.encode((data.truth, data.reason))


def asked_otherwise(old: CrunchContract, new: CrunchContract) -> str:
    """How the new contract changes what the models are asked, or what they may answer; "" if it does not."""
    if old.output_type.model_json_schema() != new.output_type.model_json_schema():
        return "output_type is another: the recorded answers were given to the old one"
    if old.call_method != new.call_method:
        return "call_method is another: the models were called otherwise"
    return ""
