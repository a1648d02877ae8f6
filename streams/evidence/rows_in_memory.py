"""The rows of the counted decisions in memory, for a command that reads a log once from its first record. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from coordinator.streams.evidence.leaves import LEAF_TOPICS, Leafed, leafed
from coordinator.streams.evidence.merkle import HASH_BYTES
from coordinator.streams.log.counting import Decision


class RowsInMemory:
    """`LeafRows` of the decisions that were added, each topic in order."""

    def __init__(self) -> None:
        self._offsets: dict[str, list[int]] = {topic: [] for topic in LEAF_TOPICS}
        self._rows: dict[str, list[Leafed]] = {topic: [] for topic in LEAF_TOPICS}

    def add(self, decision: Decision, first_leaf: int | None = None) -> Leafed:
        """Add the row of the next decision of its topic. `first_leaf`: the number of leaves of its topic before it,
        where not all of these were added.
        """
        rows = self._rows[decision.topic]
        if first_leaf is None:
            first_leaf = rows[-1].first_leaf + len(rows[-1].entries) // HASH_BYTES if rows else 0
        row = leafed(decision, first_leaf)
        rows.append(row)
        self._offsets[decision.topic].append(decision.offset)
        return row

    def row(self, topic: str, offset: int) -> Leafed | None:
        """See `LeafRows`."""
        place = bisect_right(self._offsets[topic], offset) - 1
        return self._rows[topic][place] if place >= 0 and self._offsets[topic][place] == offset else None

    def rows(self, topic: str, after: int, until: int | None = None) -> Iterator[tuple[int, Leafed]]:
        """See `LeafRows`."""
        offsets = self._offsets[topic]
        first = bisect_right(offsets, after)
        last = len(offsets) if until is None else bisect_right(offsets, until)
        yield from zip(offsets[first:last], self._rows[topic][first:last], strict=True)
