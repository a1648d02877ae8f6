"""The Merkle tree of RFC 9162, 2.1, with SHA-256: roots, inclusion proofs and their check.

Pure. Reads the hashes of complete subtrees through a `Subtrees` (tiles, or a list in memory), returns hashes. Proofs
are checked by the algorithm of the RFC (2.1.3.2), which shares no code with the function that makes them. That a tree
continues an earlier one is seen from its tiles: the root over the first leaves is that of the earlier tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
LEAVES_MAX = 1 << 48
"""Larger trees are refused: no log has so many leaves, and a proof stays short."""

Subtrees = Callable[[int, int], bytes]
"""(level, index) -> hash of the complete subtree over leaves [index * 2**level, (index + 1) * 2**level)."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf: 0x00 before its entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: 0x01 before its children, so that no leaf looks like a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def folded(hashes: Sequence[bytes]) -> bytes:
    """The hash of a complete subtree from a power of two of hashes of one level."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def root(subtrees: Subtrees, size: int) -> bytes:
    """The root over the first `size` leaves."""
    return _range(subtrees, 0, size) if size else EMPTY_ROOT


def inclusion_proof(subtrees: Subtrees, index: int, size: int) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves: hashes from its sibling upwards. Raises
    ValueError.
    """
    if not 0 <= index < size:
        message = f"leaf {index} is not in a tree of {size}"
        raise ValueError(message)
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range(subtrees, middle, high))
            high = middle
        else:
            proof.append(_range(subtrees, low, middle))
            low = middle
    return proof[::-1]


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether the leaf hash is at `index` of the tree with this root. RFC 9162, 2.1.3.2."""
    if not 0 <= index < size <= LEAVES_MAX:
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == expected_root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(subtrees: Subtrees, low: int, high: int) -> bytes:
    """MTH(D[low:high]) of the RFC. `low` must be a multiple of the smallest power of two that is not below the
    length.
    """
    parts: list[bytes] = []
    while high - low > 1 and (high - low) & (high - low - 1):
        middle = low + _split(high - low)
        parts.append(_complete(subtrees, low, middle))
        low = middle
    computed = _complete(subtrees, low, high)
    for left in reversed(parts):
        computed = node_hash(left, computed)
    return computed


def _complete(subtrees: Subtrees, low: int, high: int) -> bytes:
    level = (high - low).bit_length() - 1
    return subtrees(level, low >> level)
