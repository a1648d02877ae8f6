"""What the board shows as of the last closed period: windows that do not follow from the model's own sums (the last n
answers, an EWMA, all of them where newcomers have a past), and what was answered of the coverage's span.

Rows of a store that folds `snapshots`: `V` model_id -> (end, units, counts, coverage), and `E`, the newest period's end
in ms.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.base import eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.streams.events import Answered, SnapshotTaken
from coordinator.streams.log.counting import Decision
from coordinator.streams.snapshots.windows import Number

_Row = tuple[int, dict[str, int | None], dict[str, int], Answered | None]
_decoder = msgspec.msgpack.Decoder(_Row)


class EndedWindows:
    """Held in memory too; empty under terms of plain means without a past for newcomers and without a coverage."""

    def __init__(self, store: Store) -> None:
        ended = store.get(b"E")
        self._end = int.from_bytes(ended, "big") if ended else -1
        self._rows: dict[str, _Row] = {
            name[1:-1].decode(): _decoder.decode(row) for name, row in store.scan(b"V")
        }

    def fold(self, decision: Decision, batch: Batch) -> None:
        """Take in one decision of `snapshots`."""
        for event in decision.events:
            if type(event) is not SnapshotTaken:
                continue
            data = event.data
            if data.windows_counts or data.joined is not None or data.coverage is not None:
                row = (
                    data.period_end,
                    data.windows_units | data.boards_units,
                    data.windows_counts,
                    data.coverage,
                )
                self._rows[data.model_id] = row
                batch.put(b"V" + key(data.model_id), encode_row(row))
                if data.period_end > self._end:
                    self._end = data.period_end
                    batch.put(b"E", eight(data.period_end))

    def by_model(self) -> dict[str, dict[str, Number]]:
        """model_id -> window -> its number at the newest period's end."""
        return {
            model_id: {name: Number(one, counts.get(name, 0)) for name, one in units.items()}
            for model_id, (end, units, counts, _) in self._rows.items()
            if end == self._end
        }

    def answered(self, model_id: str) -> Answered | None:
        """What the model answered of the coverage's span; None where the newest period does not tell."""
        row = self._rows.get(model_id)
        return row[3] if row is not None and row[0] == self._end else None
