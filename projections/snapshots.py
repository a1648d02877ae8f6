"""Each model's periods: the read model behind `/reports/snapshots` and `/reports/models/global`. Folds
`snapshots`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coordinator.projections.base import Projection, TermsRows, encode_row, key
from coordinator.projections.batch import Batch
from coordinator.projections.store import Store
from coordinator.streams.counting import Decision
from coordinator.streams.events import CrunchConfigured, PeriodClosed, SnapshotTaken, SnapshotTakenData

_decoder = msgspec.msgpack.Decoder(tuple[int, SnapshotTakenData])


class Snapshots(Projection):
    """Rows `S` by period end and model."""

    name = "snapshots"
    topics = ("snapshots",)
    schema = 3

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.terms = TermsRows(store)
        closed = store.get(b"P")
        self.closed_until = int.from_bytes(closed, "big") if closed else 0
        """No snapshot will come any more for a period that ends at or before this (ms)."""
        self._newest_end = int.from_bytes(store.get(b"N") or b"", "big")

    def apply(self, decision: Decision, batch: Batch) -> None:
        for event in decision.events:
            if type(event) is SnapshotTaken:
                data = event.data
                name = b"S" + key(data.period_end, data.model_id)
                if batch.get(name) is not None:
                    self.refuse(batch, "snapshots", event, "TAKEN")
                    continue
                batch.put(name, encode_row((event.at, data)))
                self.count("snapshots", "taken")
                if data.period_end > self._newest_end:
                    self._newest_end = data.period_end
                    batch.put(b"N", data.period_end.to_bytes(8, "big"))
            elif type(event) is PeriodClosed:
                if event.data.until_ms > self.closed_until:
                    self.closed_until = event.data.until_ms
                    batch.put(b"P", self.closed_until.to_bytes(8, "big"))
                self.count("snapshots", "periods_closed")
            elif type(event) is CrunchConfigured:
                self.terms.add(event.data, batch)

    def newest(
        self,
        start: int,
        until: int,
        model_ids: set[str] | None = None,
        *,
        after: tuple[int, str] | None = None,
    ) -> Iterator[tuple[int, SnapshotTakenData]]:
        """(at, snapshot) with period end in [start, until] (ms), newest first. Take as many as wanted.

        `after` is (period end, model id) of one of them: the list goes on behind it.
        """
        last = None if after is None else b"S" + key(*after)
        first = min(last or b"S" + key(until + 1), b"S" + key(self._newest_end + 1))
        for name, row in self.store.scan(b"S", start=first, backwards=True):
            period_end = int.from_bytes(name[1:9], "big")
            if period_end > until or name == last:
                continue
            if period_end < start:
                return
            if model_ids is None or name[9:-1].decode() in model_ids:
                yield _decoder.decode(row)
