"""Writes that are not committed yet, kept per decision: a past state may end with any decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from coordinator.streams.log.counting import Decision


class Reader(Protocol):
    """The store below a batch: it answers reads of rows that the batch does not hold."""

    def get(self, key: bytes) -> bytes | None:
        """The committed row, or None."""


class Step(msgspec.Struct, frozen=True):
    """What one decision wrote: key -> row, None for a deleted row. Rows without a decision have no history."""

    decision: Decision | None
    rows: dict[bytes, bytes | None]


class Batch:
    """Writes over a store; reads through the batch see them. `keeps_past`: whether the rows' versions are stored."""

    __slots__ = ("_rows", "_step_rows", "_steps", "_store", "keeps_past")

    def __init__(self, store: Reader, *, keeps_past: bool = True) -> None:
        self._store = store
        self.keeps_past = keeps_past
        self._rows: dict[bytes, bytes | None] = {}
        self._step_rows: dict[bytes, bytes | None] = {}  # since the last decision
        self._steps: list[Step] = []

    def get(self, key: bytes) -> bytes | None:
        """The row as this batch leaves it, or None."""
        if key in self._step_rows:
            return self._step_rows[key]
        if key in self._rows:
            return self._rows[key]
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        self._step_rows[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row; it need not exist."""
        self._step_rows[key] = None

    def end_of(self, decision: Decision) -> None:
        """Note that this decision made all writes since the last call."""
        self._steps.append(Step(decision, self._step_rows))
        self._rows.update(self._step_rows)
        self._step_rows = {}

    def steps(self) -> Iterable[Step]:
        """The writes, in order."""
        yield from self._steps
        if self._step_rows:
            yield Step(None, self._step_rows)

    def clear(self) -> None:
        """Forget the writes after they were committed."""
        self._steps.clear()
        self._rows.clear()
        self._step_rows.clear()
