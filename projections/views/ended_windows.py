"""The numbers of the board that are as of the last closed period, because they do not follow from the board's sums.

These are windows over the last n answers, EWMAs, all windows if newcomers are given a past, and the coverage. Folds
`snapshots` into rows of the board's store: `V` model_id -> (end, units, counts, coverage), and `E`, the end of the
newest period in ms.
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
    """The rows, also held in memory. Empty if the terms have only plain means, no past for newcomers and no
    coverage.
    """

    def __init__(self, store: Store) -> None:
        ended = store.get(b"E")
        self._end = int.from_bytes(ended, "big") if ended else -1
        self._rows: dict[str, _Row] = {
            name[1:-1].decode(): _decoder.decode(row) for name, row in store.scan(b"V")
        }

    def fold(self, decision: Decision, batch: Batch) -> None:
        """Fold one decision of `snapshots`."""
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
            model_id: {name: Number(value, counts.get(name, 0)) for name, value in units_of.items()}
            for model_id, (end, units_of, counts, _) in self._rows.items()
            if end == self._end
        }

    def answered(self, model_id: str) -> Answered | None:
        """How many rounds of the coverage's span the model answered; None if the newest period does not say."""
        row = self._rows.get(model_id)
        return row[3] if row is not None and row[0] == self._end else None
