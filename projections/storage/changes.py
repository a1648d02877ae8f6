"""What a commit writes: rows, their earlier versions, marks and hashes, collected decision by decision.

If several decisions of one commit change a row, each version of the row is stored: a past state may end with any
decision, and not only where a commit happened to end. Rows without a history are written once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from coordinator.projections.storage.batch import Batch, Step
from coordinator.projections.storage.versions import (
    ROW,
    known_at,
    late_key,
    late_value,
    mark_key,
    mark_value,
    stamped,
    undo_key,
    value_of,
)
from coordinator.streams.log.counting import Decision

MODULUS = 1 << 256


def row_hash(key: bytes, value: bytes) -> int:
    """The summand of one row in the state hash. The length makes ("a", "bc") and ("ab", "c") differ."""
    return int.from_bytes(hashlib.sha256(len(key).to_bytes(4, "big") + key + value).digest(), "big")


class Changes:
    """Fills one WriteBatch, except for the meta record.

    `hash_of_topic`: topic -> its part of the state hash; `latest_at`: topic -> latest `at` until now, in ms. Both are
    those before the commit, and afterwards those after it.
    """

    def __init__(
        self, database: Any, write: Any, hash_of_topic: Mapping[str, int], latest_at: Mapping[str, int]
    ) -> None:
        self.hash_of_topic = dict(hash_of_topic)
        self.latest_at = dict(latest_at)
        self._database = database
        self._write = write
        self._stored: dict[bytes, tuple[bytes | None, int]] = {}
        """key -> (the row as stored after the steps until now, its hash)"""
        self._without_past: dict[bytes, tuple[str, bytes | None]] = {}

    def add(self, batch: Batch) -> None:
        """Add all steps of a batch, in order."""
        for step in batch.steps():
            self._add(step, batch)
        for key, (topic, value) in self._without_past.items():
            self._change(key, topic, 0, value)
        for key, (stored, _) in self._stored.items():
            if stored is None:
                self._write.delete(ROW + key)
            else:
                self._write.put(ROW + key, stored)

    def _add(self, step: Step, batch: Batch) -> None:
        decision = step.decision
        topic, version = (decision.topic, decision.offset) if decision is not None else ("", 0)
        if decision is None or not batch.keeps_past:
            self._without_past.update({key: (topic, value) for key, value in step.rows.items()})
            return
        for key, value in step.rows.items():
            before = self._change(key, topic, version, value)
            if before is not None:
                self._write.put(undo_key(key, version), before)
        self._mark(decision)

    def _change(self, key: bytes, topic: str, version: int, value: bytes | None) -> bytes | None:
        """Change a row; returns what was stored before, None if nothing was or if the row stays the same."""
        if key in self._stored:
            before, before_hash = self._stored[key]
        else:
            before = self._database.get(ROW + key)
            old = value_of(before)
            before_hash = 0 if old is None else row_hash(key, old)
        if value_of(before) == value:
            return None
        after_hash = 0 if value is None else row_hash(key, value)
        self.hash_of_topic[topic] = (self.hash_of_topic.get(topic, 0) - before_hash + after_hash) % MODULUS
        # A deleted row leaves a version without a value, unless no past state can show the row.
        vanishes = value is None and (before is None or key in self._without_past)
        self._stored[key] = (None if vanishes else stamped(version, value), after_hash)
        return before

    def _mark(self, decision: Decision) -> None:
        """Write the mark of a decision, even if it changed no row: a past state may end with it."""
        at = known_at(decision)
        if at is None:
            return
        topic, offset = decision.topic, decision.offset
        latest = self.latest_at.get(topic, 0)
        if at < latest:
            self._write.put(late_key(topic, latest, at, offset), late_value(latest, decision))
        self.latest_at[topic] = latest = max(latest, at)
        self._write.put(mark_key(topic, offset), mark_value(latest, at, self.hash_of_topic.get(topic, 0)))
