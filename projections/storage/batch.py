"""Writes that are not committed yet, decision by decision: each may be the one that a past state ends with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from coordinator.streams.log.counting import Decision


class Reader(Protocol):
    """What a batch reads through to."""

    def get(self, key: bytes) -> bytes | None:
        """The committed row, or None."""


class Step(msgspec.Struct, frozen=True):
    """What one decision wrote: key -> row, None for a deleted one. No decision: rows without a history."""

    decision: Decision | None
    rows: dict[bytes, bytes | None]


class Batch:
    """Writes over a store: reading sees them. `keeps_past`: are the versions of the rows kept?"""

    __slots__ = ("_rows", "_steps", "_store", "_turn", "keeps_past")

    def __init__(self, store: Reader, *, keeps_past: bool = True) -> None:
        self._store = store
        self.keeps_past = keeps_past
        self._rows: dict[bytes, bytes | None] = {}
        self._turn: dict[bytes, bytes | None] = {}
        self._steps: list[Step] = []

    def get(self, key: bytes) -> bytes | None:
        """The row as this batch leaves it, or None."""
        if key in self._turn:
            return self._turn[key]
        if key in self._rows:
            return self._rows[key]
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        self._turn[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row; none there is fine."""
        self._turn[key] = None

    def end_of(self, decision: Decision) -> None:
        """All that was written since the last one is what this decision changed."""
        self._steps.append(Step(decision, self._turn))
        self._rows.update(self._turn)
        self._turn = {}

    def steps(self) -> Iterable[Step]:
        """What was written, in order."""
        yield from self._steps
        if self._turn:
            yield Step(None, self._turn)

    def clear(self) -> None:
        """All of it was committed."""
        self._steps.clear()
        self._rows.clear()
        self._turn.clear()
