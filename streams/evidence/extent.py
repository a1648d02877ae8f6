"""How far a checkpoint reaches into each topic, and the order of the leaves that it adds to the tree.

Reads what is kept of the counted decisions (`leaves.py`); emits ends by topic. Each decision that builds checkpoints
closes a batch: of every topic, the decisions that it was made of and that no batch before it holds. So the tree is a
function of the counted log alone, whoever makes it and whenever: a node that lost its files, a mirror, a witness. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from coordinator.streams.evidence.leaves import DRIVER, LEAF_TOPICS, Leafed
from coordinator.streams.evidence.merkle import HASH_BYTES

NOWHERE = -1


class LeafRows(Protocol):
    """What is kept of the counted decisions, by topic and the offset of the decision's last part."""

    def row(self, topic: str, offset: int) -> Leafed | None:
        """One decision; None for one that is not there (yet)."""

    def rows(self, topic: str, after: int, until: int | None = None) -> Iterator[tuple[int, Leafed]]:
        """(offset, decision) with `after` < offset <= `until`, in order."""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """The leaves of one topic within a batch."""

    first_index: int
    """In the tree."""
    first_leaf: int
    """In the topic."""
    count: int
    end: int
    """The offset of the topic's last decision in the tree, here or before; -1 for none."""


class Batch(msgspec.Struct, frozen=True):
    """What one decision of `checkpoints` adds to the tree. `first` and `size` are the tree's sizes before and after."""

    number: int
    checkpoint_ids: list[str]
    offset: int
    """Of that decision."""
    first: int
    size: int
    runs: dict[str, Run]
    answered: list[str]
    """The inputs whose rounds are complete in the tree, and whose last horizon is not: later scores are of them."""

    def index_of(self, topic: str, row: Leafed, part: int = 1) -> int:
        """Where a leaf of this batch stands in the tree; parts count from 1."""
        run = self.runs[topic]
        return run.first_index + row.first_leaf - run.first_leaf + part - 1


def next_batch(rows: LeafRows, before: Batch | None) -> Batch | None:
    """The batch after `before`, or None where its checkpoint, or what it was made of, is not there yet."""
    previous = before.runs["checkpoints"].end if before else NOWHERE
    for offset, row in rows.rows("checkpoints", previous):
        if row.names:
            reach = _reach(rows, before, offset)
            return None if reach is None else _batch(rows, before, offset, row.names, *reach)
    return None


def _reach(rows: LeafRows, before: Batch | None, offset: int) -> tuple[dict[str, int], list[str]] | None:
    """(by topic the offset of the last decision that the checkpoint built at `offset` was made of; what `answered` is).

    None where it is not all there yet.
    """
    previous = _ends(before)
    ends = dict(previous)
    ends["checkpoints"] = offset
    for topic in ("checkpoints", "snapshots", "scores", "inputs"):
        if ends[topic] == previous[topic]:
            break
        row = rows.row(topic, ends[topic])
        if row is None:
            return None
        driver = DRIVER[topic]
        ends[driver] = max(ends[driver], row.driven_until)
    if ends["feeds"] > previous["feeds"] and rows.row("feeds", ends["feeds"]) is None:
        return None
    answered = dict.fromkeys(before.answered if before else ())
    scored = {
        name for _, row in rows.rows("scores", previous["scores"], ends["scores"]) for name in row.names
    }
    missing = scored - answered.keys()
    models_seq = -1
    for at, row in rows.rows("predictions", previous["predictions"]) if missing else ():
        models_seq = max(models_seq, row.models_seq)
        missing.difference_update(row.ends)
        answered.update(dict.fromkeys(row.ends))
        if not missing:
            ends["predictions"] = at
            break
    if missing:
        return None
    for _, row in rows.rows("inputs", previous["inputs"], ends["inputs"]):
        for name in row.ends:
            answered.pop(name, None)
    for at, row in rows.rows("models", previous["models"]):
        if row.seq > models_seq:
            break
        ends["models"] = at
    known = rows.row("models", ends["models"])
    return (ends, list(answered)) if models_seq <= (known.seq if known else 0) else None


def entries_of(rows: LeafRows, before: Batch | None, batch: Batch) -> Iterator[bytes]:
    """The entries that a batch adds, in the order of the tree."""
    previous = _ends(before)
    for topic in LEAF_TOPICS:
        for _, row in rows.rows(topic, previous[topic], batch.runs[topic].end):
            for at in range(0, len(row.entries), HASH_BYTES):
                yield row.entries[at : at + HASH_BYTES]


def _ends(batch: Batch | None) -> dict[str, int]:
    return {topic: batch.runs[topic].end if batch else NOWHERE for topic in LEAF_TOPICS}


def _batch(
    rows: LeafRows,
    before: Batch | None,
    offset: int,
    names: list[str],
    ends: dict[str, int],
    answered: list[str],
) -> Batch:
    first = index = before.size if before else 0
    runs: dict[str, Run] = {}
    for topic in LEAF_TOPICS:
        last = before.runs[topic] if before else Run(0, 0, 0, NOWHERE)
        first_leaf = last.first_leaf + last.count
        end_row = rows.row(topic, ends[topic]) if ends[topic] != last.end else None
        after = end_row.first_leaf + len(end_row.entries) // HASH_BYTES if end_row else first_leaf
        runs[topic] = Run(index, first_leaf, after - first_leaf, ends[topic])
        index += after - first_leaf
    return Batch(before.number + 1 if before else 1, names, offset, first, index, runs, answered)
