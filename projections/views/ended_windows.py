"""The numbers of the board that are as of the last closed period, because they do not follow from the board's sums.

These are windows over the last n answers, EWMAs, all windows if newcomers are given a past, the coverage, and the
summary of the period. Folds `snapshots` into rows of the board's store: `V` model_id -> (end, units, counts, coverage,
summary, scored), and `E`, the end of the newest period in ms.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.projection import eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.streams.events import Answered, SnapshotTaken
from coordinator.streams.log.counting import Decision
from coordinator.streams.snapshots.windows import Number

_Row = tuple[int, dict[str, int | None], dict[str, int], Answered | None, dict[str, int], int]
_decoder = msgspec.msgpack.Decoder(_Row)


class EndedWindows:
    """The rows, also held in memory: of each model the one of its newest snapshot."""

    def __init__(self, store: Store) -> None:
        ended = store.get(b"E")
        self._end = int.from_bytes(ended, "big") if ended else -1
        self._rows: dict[str, _Row] = {
            name[1:-1].decode(): _decoder.decode(row) for name, row in store.scan(b"V")
        }
        self._numbers: dict[str, dict[str, Number]] | None = None

    def fold(self, decision: Decision, batch: Batch) -> None:
        """Fold one decision of `snapshots`."""
        for event in decision.events:
            if type(event) is not SnapshotTaken:
                continue
            data = event.data
            row = (
                data.period_end,
                data.windows_units | data.boards_units,
                data.windows_counts,
                data.coverage,
                data.summary_units,
                data.scored_count,
            )
            self._rows[data.model_id] = row
            self._numbers = None
            batch.put(b"V" + key(data.model_id), encode_row(row))
            if data.period_end > self._end:
                self._end = data.period_end
                batch.put(b"E", eight(data.period_end))

    def by_model(self, since: int) -> dict[str, dict[str, Number]]:
        """model_id -> window -> its number at the newest period's end. Empty before the first period after `since`
        (ms): under the terms of before, scores meant something else.
        """
        if self._end <= since:
            return {}
        if self._numbers is None:  # it changes once a period, and the board asks at every score
            self._numbers = {
                model_id: {name: Number(value, counts.get(name, 0)) for name, value in units_of.items()}
                for model_id, (end, units_of, counts, *_) in self._rows.items()
                if end == self._end
            }
        return self._numbers

    def summary_keys(self) -> set[str]:
        """The keys of the summary that any model has in the newest period."""
        return {name for end, *_, summary, _ in self._rows.values() if end == self._end for name in summary}

    def summary(self, name: str, since: int) -> tuple[int | None, dict[str, Number]]:
        """(the newest period's end in ms, model_id -> its number of that name there); (None, {}) as for `by_model`."""
        if self._end <= since:
            return None, {}
        return self._end, {
            model_id: Number(summary.get(name), scored)
            for model_id, (end, _, _, _, summary, scored) in self._rows.items()
            if end == self._end
        }

    def answered(self, model_id: str) -> Answered | None:
        """How many rounds of the coverage's span the model answered; None if the newest period does not say."""
        row = self._rows.get(model_id)
        return row[3] if row is not None and row[0] == self._end else None
