"""Records that were set aside, and how many commands were refused, so that nothing is dropped silently.

Folds `dead-letters` and `checkpoints`. The id of a letter follows from its content, so a letter that was sent twice is
one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from coordinator.projections.folding.base import Projection, eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.streams.events import CommandRefused, DeadLettered, DeadLetteredData
from coordinator.streams.log.counting import Decision

_letter_decoder = msgspec.msgpack.Decoder(tuple[str, int, DeadLetteredData])


class DeadLetters(Projection):
    """Rows `D` are letters by time and id, and rows `L` lead from an id to its time. Refused commands are only counted:
    their rows are in `checkpoints`.
    """

    name = "dead_letters"
    topics = ("dead-letters", "checkpoints")
    owners: ClassVar[Mapping[bytes, str]] = {b"D": "dead-letters", b"L": "dead-letters"}
    schema = 2
    keeps_past = False

    def apply(self, decision: Decision, batch: Batch) -> None:
        for event in decision.events:
            if type(event) is DeadLettered:
                name = b"L" + key(event.id)
                if batch.get(name) is not None:
                    continue
                batch.put(name, eight(event.at))
                batch.put(b"D" + key(event.at, event.id), encode_row((event.id, event.at, event.data)))
                self.count("dead-letters", "letters")
            elif type(event) is CommandRefused:
                self.count("checkpoints", "refused")

    def total(self) -> int:
        """How many letters there are."""
        return self.counted("dead-letters", "letters")

    def newest(self, limit: int) -> list[tuple[str, int, DeadLetteredData]]:
        """(id, time in ms, letter) of at most `limit` letters, newest first."""
        letters: list[tuple[str, int, DeadLetteredData]] = []
        for _, raw in self.store.scan(b"D", backwards=True):
            if len(letters) >= limit:
                break
            letters.append(_letter_decoder.decode(raw))
        return letters

    def get(self, letter_id: str) -> tuple[str, int, DeadLetteredData] | None:
        """(id, time in ms, letter) of one letter; None if there is none of this id."""
        at = self.store.get(b"L" + key(letter_id))
        raw = self.store.get(b"D" + at + key(letter_id)) if at else None
        return _letter_decoder.decode(raw) if raw else None
