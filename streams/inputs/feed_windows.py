"""Makes inputs from windows of records: every tick, and the longer first tick of a model.

Pure. The input stage makes the ticks. The predict worker makes the first tick, if the contract has a longer one: the
input names the window, and its decision says where in `feeds` to begin reading, and up to which offset the stage had
read. So the tick is the same whenever it is made: later records and corrections are not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.events import InputHistory, InputReceivedData, RoundHistory
from coordinator.streams.inputs.ground_truth import Record, TypedRecords, count_until
from coordinator.streams.inputs.market import Market, arrivals
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.reasons import as_reason

SPARE = 10_000
"""How many records may be held beyond twice those that are needed."""

Windows = Mapping[str, Sequence[Record]]
"""subject -> its records, oldest first."""

_encoder = msgspec.json.Encoder()


def input_of(typed: TypedRecords, contract_hash: str, windows: Windows) -> tuple[bytes, str]:
    """(JSON, "") or (b"", what is wrong). For subjects that are asked together: an object with the input of each."""
    bodies: dict[str, msgspec.Raw] = {}
    for subject, records in windows.items():
        about = f"{subject}: " if len(windows) > 1 else ""
        try:
            body, fault = typed.model_input(contract_hash, subject, records)
        except AUTHORS_ERRORS as error:  # the author's fault is recorded, and the node continues
            return b"", as_reason(f"raw_input_type: {about}{in_words(error)}", 500)
        if fault:
            return b"", about + fault
        bodies[subject] = msgspec.Raw(body)
    return (_encoder.encode(bodies) if len(bodies) > 1 else bytes(*bodies.values())), ""


def first_tick(
    data: InputReceivedData, models: Sequence[int], windows: Windows, typed: TypedRecords
) -> tuple[RoundHistory, bytes]:
    """(what RoundOpened records of the tick, its JSON). `models`: the indices in the roster of the models that need
    it.
    """
    if not models:
        return RoundHistory(subject=data.subject, models=[]), b""
    payload, fault = input_of(typed, data.contract_hash, windows)
    typed.forget(sum(map(len, windows.values())))
    if fault:
        return RoundHistory(subject=data.subject, models=[], reason=fault), b""
    sha256 = hashlib.sha256(payload).hexdigest()
    return RoundHistory(subject=data.subject, models=list(models), sha256=sha256), payload


class History:
    """The records of `feeds` that a decision of `inputs` was made from."""

    def __init__(self) -> None:
        self.start = Need()
        """Where in `feeds` to begin reading."""
        self.end = 0
        """The offset in `feeds` after the last record that the decision was made from."""
        self._market = Market()
        self._needed_count = 0

    def learn(self, decision: Decision) -> None:
        """Take in the decision of `inputs` whose inputs are asked next."""
        self.start = decision.need.get("feeds", self.start)
        self.end = decision.upto.get("feeds", (-1, 0))[0] + 1

    def begin(self) -> None:
        """Drop all records: reading begins at `start` again."""
        self._market, self._needed_count = Market(), 0

    def take(self, decision: Decision) -> None:
        """Take in the next decision of `feeds`."""
        self._market.take(arrival for arrival in arrivals(decision) if isinstance(arrival.told, Record))

    def windows(self, history: InputHistory, point: int) -> dict[str, list[Record]]:
        """The records of a first tick, after `feeds` was taken in up to `end`."""
        self._forget()
        windows: dict[str, list[Record]] = {}
        for subject, since in history.since.items():
            records = self._market.records(history.feed, subject)
            first = count_until(records, since - 1)
            windows[subject] = records[first : count_until(records, point)]
        return windows

    def _forget(self) -> None:
        """Drop the records before `start`, from time to time. No later input needs them."""
        if self._market.count() <= 2 * self._needed_count + SPARE:
            return
        for strip in self._market.strips.values():
            strip.records = [record for record in strip.records if record.before.offset >= self.start.offset]
        self._needed_count = self._market.count()
