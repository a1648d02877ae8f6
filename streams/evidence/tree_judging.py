"""The part of the verdict on a bundle that is about its tree: the tiles give the root of the note, and each append must
be a certain leaf.

Pure. Reads a bundle through `Members`; raises ChainBrokenError at what does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import IO, Protocol, TypeVar

from coordinator.streams.audit.facts import broken
from coordinator.streams.evidence.bundle import BundleRefusedError
from coordinator.streams.evidence.cut import Cut, EarlierAppend, tiles_after
from coordinator.streams.evidence.extent import Run
from coordinator.streams.evidence.merkle import HASH_BYTES, Subtrees, folded, leaf_hash, root
from coordinator.streams.evidence.notes import Checkpoint
from coordinator.streams.evidence.tiles import WIDTH, hashes_of, subtrees_of, tile_path, tile_width

Read = TypeVar("Read")
Commitment = tuple[int, Callable[[bytes], bool]]
"""(index of a leaf, whether an entry is this leaf of the tree)"""


class Members(Protocol):
    """A bundle's members by name. Its methods raise BundleRefusedError."""

    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """The bytes of a member."""

    def reading(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A member as a file to read in pieces."""


def read_or_break(step: str, read: Callable[[], Read]) -> Read:
    """The result of `read`. If it refuses the bundle, raises ChainBrokenError of this step."""
    try:
        return read()
    except BundleRefusedError as error:
        broken(step, str(error))


def judge_tree(
    members: Members, tree: Checkpoint, cut: Cut | None
) -> tuple[Callable[[int], bytes], Subtrees]:
    """(index -> hash of the leaf, subtrees), after a check that each tile of a level has the hashes of the tiles below
    it that are in the bundle.
    """
    # Both sizes are checked before anything is read or multiplied by them: a note is another's, and may say 2**60.
    first = 0 if cut is None else cut.batch.size
    if cut is None:
        hash_bytes = sum(size for name, size in members.sizes.items() if name.startswith("tile/0/"))
        if hash_bytes != tree.size * HASH_BYTES:
            broken(
                "tree", f"the note has {tree.size} leaves, the bundle hashes of {hash_bytes / HASH_BYTES:g}"
            )
    elif not 0 < first < tree.size or (tree.size - first) // WIDTH > len(members.sizes):
        broken("tree", f"the note has {tree.size} leaves, the bundle not the hashes of those after {first}")
    tiles: dict[str, bytes] = {}
    leaves: dict[int, bytes] = {}
    below: dict[int, bytes] = {}
    """Index -> hash of each complete tile of the level below."""
    for level, indexes in tiles_after(first, tree.size):
        contents = {index: _tile(members, level, index, tree.size, tiles) for index in indexes}
        for index, computed in below.items():
            place = index % WIDTH * HASH_BYTES
            if contents[index // WIDTH][place : place + HASH_BYTES] != computed:
                broken("tree", f"the tiles of level {level} are not the hashes of those below them")
        complete = WIDTH * HASH_BYTES
        below = {
            index: folded(hashes_of(content))
            for index, content in contents.items()
            if len(content) == complete
        }
        leaves = leaves or contents  # of level 0, which comes first
    # A tile that nothing refers to would be in the bundle without being checked.
    if odd := {name for name in members.sizes if name.startswith("tile/")} - tiles.keys():
        broken("tree", f"{min(odd)} is not of this tree")
    subtrees = subtrees_of(tiles.__getitem__, tree.size)
    try:
        computed = root(subtrees, tree.size)
    except ValueError as error:
        broken("tree", str(error))
    if computed != tree.root:
        broken("tree", f"the tiles give the root {computed.hex()}, the note has {tree.root.hex()}")

    def leaf(index: int) -> bytes:
        place = index % WIDTH * HASH_BYTES
        return leaves[index // WIDTH][place : place + HASH_BYTES]

    return leaf, subtrees


def _tile(members: Members, level: int, index: int, size: int, tiles: dict[str, bytes]) -> bytes:
    width = tile_width(level, index, size)
    path = tile_path(level, index, width)
    if members.sizes.get(path, width * HASH_BYTES) != width * HASH_BYTES:
        broken("tree", f"{path} has {members.sizes[path]} bytes, not {width * HASH_BYTES}")
    content = tiles[path] = read_or_break("tree", lambda: members.read(path))
    return content


def commitments(
    earlier: list[EarlierAppend], runs: list[Run], tree: Checkpoint, leaf: Callable[[int], bytes]
) -> list[Commitment]:
    """The leaves of a topic that must be in the bundle, in order."""
    before = [
        (append.index, partial(append.is_in, size=tree.size, expected_root=tree.root)) for append in earlier
    ]
    after = [
        (index, lambda entry, index=index: leaf_hash(entry) == leaf(index))
        for run in runs
        for index in range(run.first_index, run.first_index + run.count)
    ]
    return [*before, *after]
