"""What was set aside, and which commands were refused: nothing disappears. Folds `dead-letters` and
`checkpoints`.

Ids are made of content, so a letter sent twice is one row.
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
    """Letters `D` by time and id (with `L` from id to time). Of refused commands only how many: their rows are in
    `checkpoints`.
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
        """(id, at, letter), newest first."""
        letters: list[tuple[str, int, DeadLetteredData]] = []
        for _, raw in self.store.scan(b"D", backwards=True):
            if len(letters) >= limit:
                break
            letters.append(_letter_decoder.decode(raw))
        return letters

    def get(self, letter_id: str) -> tuple[str, int, DeadLetteredData] | None:
        """One letter by its id, or None."""
        at = self.store.get(b"L" + key(letter_id))
        raw = self.store.get(b"D" + at + key(letter_id)) if at else None
        return _letter_decoder.decode(raw) if raw else None
