"""Windows that do not follow from sums (the last n answers, an EWMA), as the last closed period has them.

Rows of a store that folds `snapshots`: `V` model_id -> (end, units, counts), and `E`, the newest period's end in ms.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.base import eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.streams.events import SnapshotTaken
from coordinator.streams.log.counting import Decision
from coordinator.streams.snapshots.windows import Number

_decoder = msgspec.msgpack.Decoder(tuple[int, dict[str, int | None], dict[str, int]])


class EndedWindows:
    """Held in memory too; empty where every window is a plain mean."""

    def __init__(self, store: Store) -> None:
        ended = store.get(b"E")
        self._end = int.from_bytes(ended, "big") if ended else -1
        self._rows = {name[1:-1].decode(): _read(row) for name, row in store.scan(b"V")}

    def fold(self, decision: Decision, batch: Batch) -> None:
        """Take in one decision of `snapshots`."""
        for event in decision.events:
            if type(event) is SnapshotTaken and event.data.windows_counts:
                data = event.data
                row = encode_row((data.period_end, data.windows_units, data.windows_counts))
                self._rows[data.model_id] = _read(row)
                batch.put(b"V" + key(data.model_id), row)
                if data.period_end > self._end:
                    self._end = data.period_end
                    batch.put(b"E", eight(data.period_end))

    def by_model(self) -> dict[str, dict[str, Number]]:
        """model_id -> window -> its number at the newest period's end."""
        return {model_id: numbers for model_id, (end, numbers) in self._rows.items() if end == self._end}


def _read(row: bytes) -> tuple[int, dict[str, Number]]:
    end, units, counts = _decoder.decode(row)
    return end, {name: Number(one, counts.get(name, 0)) for name, one in units.items()}
