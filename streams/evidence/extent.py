"""Finds how far a checkpoint reaches into each topic, and orders the leaves that it adds to the tree.

Pure. Reads the rows of the counted decisions (`leaves.py`), returns batches. Each decision that builds checkpoints
closes a batch. The batch has, of every topic, the decisions that the checkpoint was made from and that no earlier
batch has. So the tree is a function of the counted log alone: a node that lost its files, a mirror and a witness all
make the same tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from coordinator.streams.evidence.leaves import DRIVER, LEAF_TOPICS, Leafed
from coordinator.streams.evidence.merkle import HASH_BYTES
from coordinator.streams.log.errors import CoordinatorError

NOWHERE = -1


class LeavesMissingError(CoordinatorError):
    """The rows do not continue where the tree ends: leaves between them are missing."""


class LeafRows(Protocol):
    """The rows of the counted decisions, by topic and by the offset of the decision's last part."""

    def row(self, topic: str, offset: int) -> Leafed | None:
        """The row of a decision; None if it is not there (yet)."""

    def rows(self, topic: str, after: int, until: int | None = None) -> Iterator[tuple[int, Leafed]]:
        """(offset, decision) with `after` < offset <= `until`, in order."""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """The leaves of one topic within a batch."""

    first_index: int
    """The index of its first leaf in the tree."""
    first_leaf: int
    """The index of its first leaf among the leaves of the topic."""
    count: int
    end: int
    """The offset of the topic's last decision in the tree, of this batch or an earlier one; -1 if there is none."""


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one decision of `checkpoints` adds to the tree. `first` and `size`: the size of the tree before and
    after.
    """

    number: int
    checkpoint_ids: list[str]
    offset: int
    """The offset of that decision."""
    first: int
    size: int
    runs: dict[str, Run]
    answered: list[str]
    """The inputs whose rounds are complete in the tree, but not their last horizon: later scores may need them."""
    key_successors: dict[str, str] = {}
    """Key -> the key that took its place, for every rotation in the tree: who must have signed its note."""

    def index_of(self, topic: str, row: Leafed, part: int = 1) -> int:
        """The index in the tree of a leaf of this batch. `part`: the part of the decision, from 1."""
        run = self.runs[topic]
        return run.first_index + row.first_leaf - run.first_leaf + part - 1


def next_batch(rows: LeafRows, before: Batch | None) -> Batch | None:
    """The batch after `before`; None if its checkpoint, or something that it was made from, is not there yet.

    Raises LeavesMissingError.
    """
    previous = before.runs["checkpoints"].end if before else NOWHERE
    for offset, row in rows.rows("checkpoints", previous):
        if row.names:
            _check_going_on(rows, before)
            reach = _reach(rows, before, offset)
            return None if reach is None else _batch(rows, before, offset, row.names, *reach)
    return None


def _check_going_on(rows: LeafRows, before: Batch | None) -> None:
    """The first row behind the tree, of each topic, is that of the first leaf that the tree has not."""
    for topic, end in _ends(before).items():
        run = before.runs[topic] if before else None
        leaves = run.first_leaf + run.count if run else 0
        first = next((row for _, row in rows.rows(topic, end)), None)
        if first is not None and first.first_leaf != leaves:
            raise LeavesMissingError(
                f"the tree has {leaves} leaves of {topic}, the rows go on at {first.first_leaf}"
            )


def _reach(rows: LeafRows, before: Batch | None, offset: int) -> tuple[dict[str, int], list[str]] | None:
    """(topic -> offset of the last decision that the checkpoint at `offset` was made from, the batch's `answered`).

    None if not all of it is there yet.
    """
    previous = _ends(before)
    ends = dict(previous)
    ends["checkpoints"] = offset
    # From the checkpoint back to the feed: each decision names the position in its driver that it decided.
    for topic in ("checkpoints", "snapshots", "scores", "inputs"):
        if ends[topic] == previous[topic]:
            break  # this batch needs nothing new of it, and so nothing new of what drives it
        row = rows.row(topic, ends[topic])
        if row is None:
            return None
        driver = DRIVER[topic]
        ends[driver] = max(ends[driver], row.driven_until)
    if ends["feeds"] > previous["feeds"] and rows.row("feeds", ends["feeds"]) is None:
        return None
    # The rounds of the scores: read `predictions` on until each of them is complete.
    answered = dict.fromkeys(before.answered if before else ())
    scored = {name for _, row in rows.rows("scores", previous["scores"], ends["scores"]) for name in row.ends}
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
    # An input whose last horizon is in the tree has all its scores. Without this the list would grow without limit.
    for _, row in rows.rows("inputs", previous["inputs"], ends["inputs"]):
        for name in row.ends:
            answered.pop(name, None)
    # The models that the rosters of these rounds are made from.
    for at, row in rows.rows("models", previous["models"]):
        if row.seq > models_seq:
            break
        ends["models"] = at
    last_row = rows.row("models", ends["models"])
    return (ends, list(answered)) if models_seq <= (last_row.seq if last_row else 0) else None


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
    successors = dict(before.key_successors) if before else {}
    for _, row in rows.rows("checkpoints", before.runs["checkpoints"].end if before else NOWHERE, offset):
        for old_key, new_key in map(str.split, row.ends):
            successors.setdefault(old_key, new_key)
    return Batch(before.number + 1 if before else 1, names, offset, first, index, runs, answered, successors)
