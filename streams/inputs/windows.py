"""Windows of records, and the input that is made of them.

Pure. The input stage makes every tick of them. Whoever asks models makes the longer first tick of a contract that has
one: an input names its window, and its decision says where in `feeds` a reader begins who needs it, and how far `feeds`
was decided then. So the tick is the same whoever makes it, and whenever: what came later, a correction too, is not in
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.events import InputHistory, InputReceivedData, RoundHistory
from coordinator.streams.inputs.ground_truth import Record, TypedRecords, count_until
from coordinator.streams.inputs.market import Market, arrivals
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.reasons import as_reason

SPARE = 10_000
"""How many records that nobody needs any more may be held."""

Windows = Mapping[str, Sequence[Record]]
"""subject -> its records, oldest first."""

_encoder = msgspec.json.Encoder()


def input_of(typed: TypedRecords, contract_hash: str, windows: Windows) -> tuple[bytes, str]:
    """(JSON, "") or (b"", what is wrong). Of several subjects, which are asked together, it is an object with the input
    of each.
    """
    bodies: dict[str, msgspec.Raw] = {}
    for subject, records in windows.items():
        about = f"{subject}: " if len(windows) > 1 else ""
        try:
            body, fault = typed.model_input(contract_hash, subject, records)
        except AUTHORS_ERRORS as error:  # its fault is recorded, and the node goes on
            return b"", as_reason(f"raw_input_type: {about}{type(error).__name__}: {error}", 500)
        if fault:
            return b"", about + fault
        bodies[subject] = msgspec.Raw(body)
    return (_encoder.encode(bodies) if len(bodies) > 1 else bytes(*bodies.values())), ""


def first_tick(
    data: InputReceivedData, models: Sequence[int], windows: Windows, typed: TypedRecords
) -> tuple[RoundHistory, bytes]:
    """What the round says of it, and its JSON. `models` are the indices, in the roster, of those that need it."""
    if not models:
        return RoundHistory(subject=data.subject, models=[]), b""
    payload, fault = input_of(typed, data.contract_hash, windows)
    typed.forget(sum(map(len, windows.values())))
    if fault:
        return RoundHistory(subject=data.subject, models=[], reason=fault), b""
    sha256 = hashlib.sha256(payload).hexdigest()
    return RoundHistory(subject=data.subject, models=list(models), sha256=sha256), payload


class History:
    """`feeds` as far as the decision of `inputs` in hand, from where that one's records begin."""

    def __init__(self) -> None:
        self.start = Need()
        """Where a reader of `feeds` begins."""
        self.end = 0
        """The offset in `feeds` behind the last record that the decision knew."""
        self._market = Market()
        self._kept = 0

    def learn(self, decision: Decision) -> None:
        """The decision of `inputs` whose inputs come next."""
        self.start = decision.need.get("feeds", self.start)
        self.end = decision.upto.get("feeds", (-1, 0))[0] + 1

    def begin(self) -> None:
        """Nothing is read: a reader stands at `start`."""
        self._market, self._kept = Market(), 0

    def take(self, decision: Decision) -> None:
        """The next decision of `feeds`."""
        self._market.take(one for one in arrivals(decision) if isinstance(one.told, Record))

    def windows(self, history: InputHistory, point: int) -> dict[str, list[Record]]:
        """What a first tick is made of, once `feeds` is taken up to `end`."""
        self._forget()
        windows: dict[str, list[Record]] = {}
        for subject, since in history.since.items():
            records = self._market.records(history.feed, subject)
            first = count_until(records, since - 1)
            windows[subject] = records[first : count_until(records, point)]
        return windows

    def _forget(self) -> None:
        """What lies before the start is needed by no later input: another reader would begin there too."""
        if self._market.count() <= 2 * self._kept + SPARE:
            return
        for strip in self._market.strips.values():
            strip.records = [one for one in strip.records if one.before.offset >= self.start.offset]
        self._kept = self._market.count()
