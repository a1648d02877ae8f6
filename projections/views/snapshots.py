"""The read model of each model's periods, for `/reports/snapshots` and `/reports/models/global`.

Folds `snapshots`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.projections.folding.projection import Projection, TermsRows, eight, encode_row, key
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.streams.contract.terms import in_force
from coordinator.streams.events import (
    CrunchConfigured,
    PeriodClosed,
    PeriodClosedData,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import is_ensemble

BOUNDARY = "boundary"
_decoder = msgspec.msgpack.Decoder(tuple[int, SnapshotTakenData])
_closed_decoder = msgspec.msgpack.Decoder(tuple[int, PeriodClosedData])


class Snapshots(Projection):
    """One row `S` for each period end and model, and `C` for each PeriodClosed by its start and end; `P` is the end of
    the last closed period, `N` that of the newest row.
    """

    name = "snapshots"
    topics = ("snapshots",)
    schema = 8
    explained = frozenset((b"C", b"S", b"T"))
    leaving = (b"S", b"C")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.terms = TermsRows(store)
        closed = store.get(b"P")
        self.closed_until = int.from_bytes(closed, "big") if closed else 0
        """Every period that ends at or before this (ms) is closed: no snapshot of it will come."""
        self.boundary: tuple[int, int] = tuple(store.notes.get(BOUNDARY, (-1, 0)))
        """(offset of the newest decision that ended a checkpoint period, that end in ms)."""
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
                    batch.put(b"N", eight(data.period_end))
            elif type(event) is PeriodClosed:
                name = b"C" + key(event.data.from_ms, event.data.until_ms)
                if batch.get(name) is None:
                    batch.put(name, encode_row((event.at, event.data)))
                if event.data.until_ms > self.closed_until:
                    self.closed_until = event.data.until_ms
                    batch.put(b"P", eight(self.closed_until))
                    terms = in_force(self.terms.in_order)
                    if terms.ends_checkpoint_period(event.data.from_ms, event.data.until_ms):
                        self.boundary = decision.offset, terms.checkpoint_period(self.closed_until)[0]
                self.count("snapshots", "periods_closed")
            elif type(event) is CrunchConfigured:
                self.terms.add(event.data, batch)

    def notes(self) -> dict[str, Any]:
        return {BOUNDARY: self.boundary}

    def get(self, model_id: str, period_end: int) -> tuple[int, SnapshotTakenData, int] | None:
        """(at, snapshot, offset of its decision) of a model's period that ends at `period_end` (ms), or None."""
        name = b"S" + key(period_end, model_id)
        row = self.store.get(name)
        return None if row is None else (*_decoder.decode(row), self.store.written_at(name)[0])

    def closings(self, start: int, until: int) -> Iterator[tuple[int, PeriodClosedData, int]]:
        """(at, closing, offset of its decision) of the periods that begin in [start, until) (ms), newest first."""
        for name, row in self.store.scan(b"C", start=b"C" + key(until), backwards=True):
            from_ms = int.from_bytes(name[1:9], "big")
            if from_ms < start:
                return
            if from_ms < until:
                yield (*_closed_decoder.decode(row), self.store.written_at(name)[0])

    def newest(
        self,
        start: int,
        until: int,
        model_ids: set[str] | None = None,
        *,
        after: tuple[int, str] | None = None,
        look: ReadBudget | None = None,
        ensembles: bool = True,
    ) -> Iterator[tuple[int, SnapshotTakenData]]:
        """(at, snapshot) of the snapshots with a period end in [start, until] (ms), the newest first.

        `after`: (period end, model id) of the snapshot after which to continue. Without `ensembles` only those of
        models, unless `model_ids` names an ensemble. With `model_ids` it reads one row for each period and each of
        these models, however many others there are; `look` limits that.
        """
        if model_ids is not None:
            yield from self._newest_of(start, until, model_ids, after, look)
            return
        last = None if after is None else b"S" + key(*after)
        first = min(last or b"S" + key(until + 1), b"S" + key(self._newest_end + 1))
        for name, row in self.store.scan(b"S", start=first, backwards=True):
            period_end = int.from_bytes(name[1:9], "big")
            if period_end > until or name == last:
                continue
            if period_end < start:
                return
            if not ensembles and is_ensemble(name[9:-1].decode()):
                continue
            yield _decoder.decode(row)

    def _newest_of(
        self,
        start: int,
        until: int,
        model_ids: set[str],
        after: tuple[int, str] | None,
        look: ReadBudget | None,
    ) -> Iterator[tuple[int, SnapshotTakenData]]:
        ids_descending = sorted(model_ids, reverse=True)
        end = self._end_before((until if after is None else min(until, after[0])) + 1)
        before: tuple[int, str] | None = None
        while end is not None and end >= start:
            for model_id in ids_descending or [""]:
                if after is not None and (end, model_id) >= after:
                    continue
                if look is not None and before is not None and not look.at(*before):
                    return
                row = self.store.get(b"S" + key(end, model_id))
                before = (end, model_id)
                if row is not None:
                    yield _decoder.decode(row)
            end = self._end_before(end)

    def _end_before(self, at: int) -> int | None:
        """The newest period end before `at` that has a snapshot."""
        first = min(b"S" + key(at), b"S" + key(self._newest_end + 1))
        for name, _ in self.store.scan(b"S", start=first, backwards=True):
            end = int.from_bytes(name[1:9], "big")
            if end < at:
                return end
        return None
