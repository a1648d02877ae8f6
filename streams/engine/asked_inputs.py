"""What a recorded log asked the models, and whether other rules would have asked the same. Pure.

Plans, shadows and corrections need it, because the answer to another question is unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
)
from coordinator.streams.predictions.replies import Answers
from coordinator.streams.predictions.strikes import Strikes

TOO_LARGE = ("TOO_BIG:", "BAD_OUTPUT:")
"""How the reason begins why an answer was refused for its size."""


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


class AnswersWithinLimits:
    """Whether the recorded answers, given within the limits of the old contract, are those that the new one would have
    let through: how large an answer may be, and after how many bad rounds a model is reported.
    """

    def __init__(self, old: CrunchContract, new: CrunchContract) -> None:
        self._old, self._new = old, new
        self._strikes = {contract.model_strikes_max: Strikes() for contract in (old, new)}
        self._others = self._reports = 0

    @property
    def reason(self) -> str:
        """Why the answers would have been others; "" if they would not, as far as is known."""
        if self._others:
            bytes_max = self._new.output_max_bytes
            return (
                f"output_max_bytes is {bytes_max}: {self._others:,} recorded answers would have been others"
            )
        if self._reports:
            rounds = f"{self._reports:,} rounds a model would have been reported, or would not"
            return (
                f"model_strikes_max is {self._new.model_strikes_max}: in {rounds}, and who is reported leaves"
            )
        return ""

    def take(self, answers: Answers) -> None:
        """Compare the answers of one round."""
        if self._old.output_max_bytes != self._new.output_max_bytes:
            self._others += sum(self._is_other(entry) for entries in answers.values() for entry in entries)
        if self._old.model_strikes_max != self._new.model_strikes_max:
            reported = [
                {strike.model_id for strike in strikes.note(answers, strikes_max)}
                for strikes_max, strikes in self._strikes.items()
            ]
            for strikes, model_ids in zip(self._strikes.values(), reported, strict=True):
                for model_id in model_ids:
                    strikes.reported(model_id)
            self._reports += reported[0] != reported[1]

    def _is_other(self, entry: AnswerEntry) -> bool:
        if entry.status == "PENDING" and entry.output is not None:
            return len(entry.output) > self._new.output_max_bytes
        was_refused = entry.reason.startswith(TOO_LARGE) and "more than" in entry.reason
        return was_refused and self._old.output_max_bytes < self._new.output_max_bytes


def question(data: InputReceivedData) -> str:
    """The SHA-256 of an input without the contract that scores it. Equal ones ask the models the same.

    The input itself shows hundreds of records: kept for each, a log of few models would be in memory twice.
    """
    asked = msgspec.msgpack.encode(msgspec.structs.replace(data, contract_hash=""))
    return hashlib.sha256(asked).hexdigest()


def truth_of(data: InputResolvedData) -> bytes:
    """The basis of a score, as bytes: the truth, or the reason why there is none."""
    return msgspec.json.encode((data.truth, data.reason))


def asked_otherwise(old: CrunchContract, new: CrunchContract) -> str:
    """How the new contract changes what the models are asked, or what they may answer; "" if it does not."""
    if old.output_type.model_json_schema() != new.output_type.model_json_schema():
        return "output_type is another: the recorded answers were given to the old one"
    if old.call_method != new.call_method:
        return "call_method is another: the models were called otherwise"
    return ""
