from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.streams.evidence.tile_paths import paths_of

from coordinator.streams.evidence import merkle
from coordinator.streams.evidence.merkle import folded, leaf_hash
from coordinator.streams.evidence.tiles import (
    entries_of,
    entry_bundle,
    grown,
    subtrees_of,
    tile_path,
    tile_width,
)


def entries(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def plain_root(size: int) -> bytes:
    leaves = [leaf_hash(entry) for entry in entries(size)]
    return merkle.root(lambda level, index: folded(leaves[index << level : (index + 1) << level]), size)


def tree(*sizes: int) -> dict[str, bytes]:
    """The tiles of a tree that was grown to these sizes in turn."""
    tiles: dict[str, bytes] = {}
    size = 0
    for until in sizes:
        tiles |= dict(grown(tiles.__getitem__, size, entries(until)[size:]))
        size = until
    return tiles


def test_paths_are_those_of_the_format():
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(2, 0, 1) == "tile/2/000.p/1"
    assert tile_path("entries", 999, 255) == "tile/entries/999.p/255"
    assert tile_path(0, 1000) == "tile/0/x001/000"


def test_a_tree_has_the_tiles_that_the_format_requires():
    """The format's own example: 70,000 leaves. And 256 leaves have a full tile, with one of width 1 above it."""
    paths = list(paths_of(70_000))
    assert sum(path.startswith("tile/0/") for path in paths) == 274
    assert tile_path(0, 273, 112) in paths
    assert [path for path in paths if not path.startswith("tile/0/")] == [
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]
    assert list(paths_of(256)) == ["tile/0/000", "tile/1/000.p/1"]
    assert list(paths_of(0)) == []
    assert tile_width(1, 1, 70_000) == 17


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 600), min_size=1, max_size=4))
def test_a_tree_is_the_same_however_it_grew(steps: list[int]):
    sizes = [sum(steps[: count + 1]) for count in range(len(steps))]
    grew, at_once = tree(*sizes), tree(sizes[-1])
    assert {path: grew[path] for path in at_once} == at_once
    for size in sizes:  # the partial tiles of every intermediate size exist
        assert merkle.root(subtrees_of(grew.__getitem__, size), size) == plain_root(size)


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 1500), data=st.data())
def test_proofs_from_tiles_are_valid(size: int, data: st.DataObject):
    tiles = tree(size)
    subtrees = subtrees_of(tiles.__getitem__, size)
    root = plain_root(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(subtrees, index, size)
    assert merkle.includes(leaf_hash(entries(size)[index]), index, size, proof, root)
    earlier = data.draw(st.integers(0, size))
    assert merkle.root(subtrees, earlier) == (plain_root(earlier) if earlier else merkle.EMPTY_ROOT)


def test_a_tree_may_have_three_levels_of_tiles():
    tiles = tree(66_000)
    assert merkle.root(subtrees_of(tiles.__getitem__, 66_000), 66_000) == plain_root(66_000)
    assert set(paths_of(66_000)) <= set(tiles)


def test_truncated_tiles_are_refused():
    tiles = tree(300)
    tiles["tile/0/000"] = tiles["tile/0/000"][:-1]
    with pytest.raises(ValueError, match=r"tile/0/000 has 8191 bytes"):
        subtrees_of(tiles.__getitem__, 300)(0, 0)
    with pytest.raises(KeyError):
        subtrees_of({}.__getitem__, 5)(0, 0)
    assert entries_of(entry_bundle(entries(3))) == entries(3)
    for cut in (1, 33, 35):
        with pytest.raises(ValueError, match="cut"):
            entries_of(entry_bundle(entries(3))[:cut])
