"""Records that were set aside, and how many commands were refused, so that nothing is dropped silently.

Folds `dead-letters` and `checkpoints`. The id of a letter follows from its content, so a letter that was sent twice is
one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.streams.events import CommandRefused, DeadLettered, DeadLetteredData
from coordinator.streams.log.counting import Decision

ORIGINS = ("commands", "log", "outside")
"""Where letters come from: a command that could not be taken, a record of our own log, a source of records."""
_refused_decoder = msgspec.msgpack.Decoder(tuple[str, str])
_letter_decoder = msgspec.msgpack.Decoder(tuple[str, int, DeadLetteredData])


class DeadLetters(Projection):
    """Rows `D` are letters by time and id, and rows `L` lead from an id to its time. Rows `C` are what a stage refused
    of a command, by its id. Commands that are refused whole are only counted: their rows are in `checkpoints`.
    """

    name = "dead_letters"
    topics = ("dead-letters", "checkpoints")
    owners: ClassVar[Mapping[bytes, str]] = {b"D": "dead-letters", b"L": "dead-letters", b"C": "dead-letters"}
    schema = 4
    keeps_past = False

    def apply(self, decision: Decision, batch: Batch) -> None:
        for event in decision.events:
            if type(event) is DeadLettered:
                name = b"L" + key(event.id)
                if batch.get(name) is not None:
                    continue
                batch.put(name, eight(event.at))
                batch.put(b"D" + key(event.at, event.id), encode_row((event.id, event.at, event.data)))
                origin = event.data.origin
                self.count("dead-letters", origin if origin in ORIGINS else "outside")
                self._refused(event, batch)
            elif type(event) is CommandRefused:
                self.count("checkpoints", "refused")

    def _refused(self, event: DeadLettered, batch: Batch) -> None:
        """Note what was refused of a command: the body is its id, and the item is after it or in the position."""
        command_id, _, item = event.data.head.partition(" ")
        if event.data.origin == "commands" and command_id.startswith("cmd/"):
            item = item or event.data.position.partition(" ")[2]
            reason = event.data.reason.removeprefix(f"{item}: ")
            batch.put(b"C" + key(command_id, event.id), encode_row((item, reason)))

    def total(self) -> int:
        """How many letters there are."""
        return sum(self.totals().values())

    def totals(self) -> dict[str, int]:
        """How many letters came from each of `ORIGINS`."""
        return {origin: self.counted("dead-letters", origin) for origin in ORIGINS}

    def newest(self, limit: int) -> list[tuple[str, int, DeadLetteredData]]:
        """(id, time in ms, letter) of at most `limit` letters, newest first."""
        letters: list[tuple[str, int, DeadLetteredData]] = []
        for _, raw in self.store.scan(b"D", backwards=True):
            if len(letters) >= limit:
                break
            letters.append(_letter_decoder.decode(raw))
        return letters

    def get(self, letter_id: str) -> tuple[str, int, DeadLetteredData] | None:
        """(id, time in ms, letter) of one letter; None if no letter has this id."""
        at = self.store.get(b"L" + key(letter_id))
        raw = self.store.get(b"D" + at + key(letter_id)) if at else None
        return _letter_decoder.decode(raw) if raw else None

    def refused_of(self, command_id: str) -> list[tuple[str, str]]:
        """(item, reason) of each item of this command that its stage refused."""
        return [_refused_decoder.decode(raw) for _, raw in self.store.scan(b"C" + key(command_id))]
