"""Where a bundle begins that does not hold the log from its first append: at the end of an earlier checkpoint.

From there on it holds every append; of before, only those that the states at the beginning of the period follow from:
the terms, the models, the checkpoints, and the last snapshot of each participant. Each is a leaf of the signed tree, so
none can be altered. Whether the others would change nothing cannot be seen without them: this is a claim of
whoever made the bundle, and a bundle from the first append on shows it.

Pure: compares states, counts tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.merkle import HASH_BYTES, Subtrees, includes, inclusion_proof, leaf_hash
from coordinator.streams.evidence.tiles import HEIGHT, WIDTH
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.stage import AnyStage

WHOLE_TOPICS = ("models", "checkpoints")
"""In every bundle from their first append on: who takes part, whose key signs, what is owed. They grow slowly."""
RULES = "CrunchConfigured"
_TRAIL = {"starts", "totals", "before"}


class EarlierAppend(msgspec.Struct, frozen=True, array_like=True):
    """An append from before a cut: [index of its leaf, the hashes that lead from it to the root, 32 bytes each]."""

    index: int
    siblings: bytes

    @classmethod
    def of(cls, subtrees: Subtrees, index: int, size: int) -> Self:
        """With the proof that a tree of `size` leaves includes it."""
        return cls(index, b"".join(inclusion_proof(subtrees, index, size)))

    def is_in(self, entry: bytes, size: int, expected_root: bytes) -> bool:
        """Whether the entry is that leaf of the tree with this root."""
        siblings = [self.siblings[at : at + HASH_BYTES] for at in range(0, len(self.siblings), HASH_BYTES)]
        return includes(leaf_hash(entry), self.index, size, siblings, expected_root)


class Cut(msgspec.Struct, frozen=True):
    """What a bundle says of its beginning. Nothing of it is trusted: each append must be the leaf that this names."""

    batch: Batch
    """All appends after this batch are in the bundle."""
    begins: dict[str, int]
    """Topic -> the number of the first decision from which on none is missing."""
    earlier: dict[str, list[EarlierAppend]]
    """Topic -> each of its appends in the bundle that are not after the batch, in order."""

    def complete_from(self, topic: str) -> int:
        """The number of the topic's first decision from which on none may be missing."""
        return 1 if topic in WHOLE_TOPICS else self.begins.get(topic, 1)


class Plan(msgspec.Struct, frozen=True):
    """Which appends a bundle holds. `kept`: offsets in `snapshots` before the batch's end; `commands_from`: the offset
    of the first command that is needed, apart from those that applied contracts.
    """

    batch: Batch
    kept: frozenset[int]
    commands_from: int

    def holds(self, decision: Decision) -> bool:
        """Whether a decision is in the bundle."""
        topic = decision.topic
        if topic == "commands":
            return decision.offset >= self.commands_from or decision.may_hold("ApplyContract")
        return (
            topic in WHOLE_TOPICS
            or decision.offset > self.batch.runs[topic].end
            or decision.may_hold(RULES)
            or (topic == "snapshots" and decision.offset in self.kept)
        )


def reach_ms(terms: TermsInForce) -> int:
    """How far before its beginning a period looks back: to the oldest period in a window or a coverage, and at least to
    the round that was asked longest before it and the snapshot that this was told of.
    """
    spans = [held for _, _, held in terms.spans()]
    hours = [window.hours for held in spans for window in held.windows]
    hours += [held.coverage.hours for held in spans if held.coverage is not None]
    horizons = [scope.horizon_seconds * 1000 for held in spans for scope in held.scopes]
    intervals = [2 * held.snapshot_interval_ms for held in spans]
    return max([hour * HOUR_MS for hour in hours] + [max(horizons, default=0) + max(intervals)])


def are_alike(stage: AnyStage, other: AnyStage) -> bool:
    """Whether two stages decide the same from here on: equal states, apart from sums over what is dropped already."""
    return (
        stage.upto == other.upto
        and stage.need == other.need
        and _relative(msgspec.to_builtins(stage.state.own)) == _relative(msgspec.to_builtins(other.state.own))
    )


def _relative(value: Any) -> Any:
    """Plain data with each `Trail` counted from its first period, and without trails that have none."""
    if isinstance(value, dict):
        if value.keys() == _TRAIL:
            before = value["before"]
            totals = [
                [total - was for total, was in zip(row, before, strict=True)] for row in value["totals"]
            ]
            return {"starts": value["starts"], "totals": totals}
        relative = {name: _relative(inner) for name, inner in value.items()}
        return {
            name: inner for name, inner in relative.items() if inner not in ({"starts": [], "totals": []}, {})
        }
    return [_relative(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def tiles_after(first: int, size: int) -> Iterator[tuple[int, range]]:
    """(level, indexes) of the tiles that lead from the leaves from `first` on to the root of a tree of `size`."""
    level = 0
    while count := size >> (HEIGHT * level):
        yield level, range((min(first, size - 1) >> (HEIGHT * level)) // WIDTH, -(-count // WIDTH))
        level += 1
