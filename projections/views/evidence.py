"""The leaves of each counted decision that is not in the tree over the log yet.

Folds the topics whose decisions are leaves (`streams/evidence/leaves.py`), each into rows of its own.
`streams/evidence/extent.py` joins the topics in the order of the tree when a checkpoint closes a batch. Then the rows
leave, but for those of `checkpoints`, whose rotations of the key are looked up. `api/evidence_loop.py` lets them go.

It reads every decision of the node, so folding must cost very little. Therefore a row holds 16 decisions, and the
decisions that do not fill a row yet (the tail) are kept in the store's notes, beside the positions.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, eight, encode_row
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Store
from coordinator.streams.evidence.leaves import LEAF_TOPICS, Leafed, leafed
from coordinator.streams.evidence.merkle import HASH_BYTES
from coordinator.streams.log.counting import Decision

ROWS = dict(zip(LEAF_TOPICS, (b"f", b"i", b"m", b"p", b"s", b"n", b"c"), strict=True))
"""Topic -> the first byte of its rows."""
DECISIONS_IN_ROW = 16
TAILS = "tails"
OffsetLeaves = tuple[int, Leafed]
"""(the decision's offset, its leaves)"""
_decoder = msgspec.msgpack.Decoder(list[OffsetLeaves])


class Evidence(Projection):
    """Rows of 16 decisions each, by topic and the offset of the first decision.

    It must be read in the process that folds it: the newest decisions are in the tails, which no row holds.
    """

    name = "evidence"
    topics = LEAF_TOPICS
    owners: ClassVar[Mapping[bytes, str]] = {first: topic for topic, first in ROWS.items()}
    schema = 2
    keeps_past = False
    leaving = tuple(first for topic, first in ROWS.items() if topic != "checkpoints")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._tails: dict[str, list[OffsetLeaves]] = {topic: [] for topic in LEAF_TOPICS}
        self._tail_notes: dict[str, str] = dict(store.notes.get(TAILS, {}))
        for topic, text in self._tail_notes.items():
            self._tails[topic] = _decoder.decode(base64.b64decode(text))
        self._leaves = {topic: self._count_leaves(topic) for topic in LEAF_TOPICS}

    def _count_leaves(self, topic: str) -> int:
        last = self._tails[topic][-1:] or [
            entry for _, raw in self._newest_row(topic) for entry in _decoder.decode(raw)[-1:]
        ]
        return sum(row.first_leaf + len(row.entries) // HASH_BYTES for _, row in last)

    def _newest_row(self, topic: str) -> list[tuple[bytes, bytes]]:
        newest = next(self.store.scan(ROWS[topic], backwards=True), None)
        return [newest] if newest else []

    def horizon(self, ends: Mapping[str, int]) -> Horizon:
        """The rows that may be removed after the tree has the decisions before these offsets. The latest row of each
        topic stays, because the number of leaves is counted from it.
        """
        before = self.store.horizon
        cuts = {}
        for topic, end in ends.items():
            newest = [int.from_bytes(name[1:], "big") for name, _ in self._newest_row(topic)]
            cuts[topic] = min([end, *newest])
        return Horizon(0, cuts, hash_of_left=before.hash_of_left) if before else Horizon(0, cuts)

    def is_over(self, row_key: bytes, row: bytes, horizon: Horizon) -> bool:
        return _decoder.decode(row)[-1][0] < horizon.cuts[self.owner(row_key)]

    def apply(self, decision: Decision, batch: Batch) -> None:
        topic = decision.topic
        row = leafed(decision, self._leaves[topic])
        self._leaves[topic] += len(row.entries) // HASH_BYTES
        tail = self._tails[topic]
        tail.append((decision.offset, row))
        self._tail_notes.pop(topic, None)  # encoded again at the next commit, and not at every decision
        if len(tail) == DECISIONS_IN_ROW:
            batch.put(ROWS[topic] + eight(tail[0][0]), encode_row(tail))
            self._tails[topic] = []

    def notes(self) -> dict[str, Any]:
        for topic, tail in self._tails.items():
            if topic not in self._tail_notes:
                self._tail_notes[topic] = base64.b64encode(encode_row(tail)).decode()
        return {TAILS: dict(self._tail_notes)}

    def row(self, topic: str, offset: int) -> Leafed | None:
        """See `LeafRows`."""
        return next((row for _, row in self.rows(topic, offset - 1, offset)), None)

    def rows(self, topic: str, after: int, until: int | None = None) -> Iterator[OffsetLeaves]:
        """See `LeafRows`."""
        first = ROWS[topic]
        containing = next(self.store.scan(first, start=first + eight(after + 1), backwards=True), None)
        start = containing[0] if containing else first
        # The row that holds the first wanted decision may begin before it, so the scan begins at that row.
        in_rows = (entry for _, raw in self.store.scan(first, start=start) for entry in _decoder.decode(raw))
        for offset, row in chain(in_rows, self._tails[topic]):
            if until is not None and offset > until:
                return
            if offset > after:
                yield offset, row
