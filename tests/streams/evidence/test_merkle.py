from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from coordinator.streams.evidence import merkle
from coordinator.streams.evidence.merkle import (
    EMPTY_ROOT,
    Subtrees,
    folded,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
)

# The leaves and roots with which the reference implementations of RFC 6962 and 9162 are tested.
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def in_memory(leaves: list[bytes]) -> Subtrees:
    def subtree(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level
        return folded(part)

    return subtree


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, literally."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = max(1 << bit for bit in range(40) if 1 << bit < len(leaves))
    return node_hash(root_by_definition(leaves[:split]), root_by_definition(leaves[split:]))


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference_vectors(size: int):
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    assert merkle.root(in_memory(leaves), size).hex() == ROOTS[size]


def test_a_leaf_hash_is_no_node_hash():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") == hashlib.sha256(b"\x00").digest()


@given(size=st.integers(1, 200), data=st.data())
def test_every_leaf_has_a_proof_that_fits_no_other(size: int, data: st.DataObject):
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(in_memory(leaves), index, size)
    expected = root_by_definition(leaves)
    assert merkle.root(in_memory(leaves), size) == expected
    assert includes(leaves[index], index, size, proof, expected)
    assert not includes(leaf_hash(b"other"), index, size, proof, expected)
    wrong = data.draw(st.integers(0, size + 2).filter(lambda number: number != index))
    assert not includes(leaves[index], wrong, size, proof, expected)
    assert not includes(leaves[index], index, size, [*proof, leaves[0]], expected)
    if proof:
        assert not includes(leaves[index], index, size, proof[:-1], expected)


@settings(max_examples=30)
@given(size=st.integers(1, 130), data=st.data())
def test_an_independent_library_makes_the_same_tree_and_the_same_inclusion_proofs(
    size: int, data: st.DataObject
):
    other = InmemoryTree.init_from_entries(
        [str(number).encode() for number in range(size)], algorithm="sha256"
    )
    leaves = leaves_of(size)
    part = data.draw(st.integers(1, size))
    assert other.get_root(part) == merkle.root(in_memory(leaves), part)
    index = data.draw(st.integers(0, part - 1))
    path = other.prove_inclusion(index + 1, part).serialize()[
        "path"
    ]  # it counts from 1, and begins with the leaf
    proof = inclusion_proof(in_memory(leaves), index, part)
    assert path == [leaves[index].hex(), *(sibling.hex() for sibling in proof)]


def test_an_impossible_proof_is_refused():
    with pytest.raises(ValueError, match="leaf 3"):
        inclusion_proof(in_memory(leaves_of(3)), 3, 3)
    assert not includes(leaf_hash(b""), 0, 1 << 60, [], EMPTY_ROOT)
