"""The tree as static files in the format C2SP tlog-tiles, with 256 hashes to a tile.

Pure. Reads tiles by path through a function, returns the tiles that new leaves make. A tile at level n has the hashes
of complete subtrees of 256**n leaves. The last tile of a level may be partial, and then has its width in its path.
Entries have 32 bytes (`leaves.py`), each after two bytes with its length.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from coordinator.streams.evidence.merkle import HASH_BYTES, Subtrees, folded, leaf_hash

WIDTH = 256
HEIGHT = 8
ENTRIES = "entries"
_ENTRY_LENGTH = struct.Struct(">H")

ReadTile = Callable[[str], bytes]
"""Path -> the tile's bytes. Raises KeyError if there is no such tile."""


_LEVEL, _NUMBER = "([0-9]|[1-5][0-9]|6[0-3])", r"(x[0-9]{3}/){0,5}[0-9]{3}(\.p/[0-9]{1,3})?"
HASH_TILE_PATH = f"tile/{_LEVEL}/{_NUMBER}"
"""A regular expression of the paths that `tile_path` gives for a level. Digits are ASCII ones alone."""
TILE_PATH = f"tile/({_LEVEL}|{ENTRIES})/{_NUMBER}"
"""The same, with those for `entries`."""


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`; `level` may be `entries`."""
    text = f"{index % 1000:03d}"
    while index >= 1000:  # noqa: PLR2004 - three digits an element
        index //= 1000
        text = f"x{index % 1000:03d}/{text}"
    return f"tile/{level}/{text}" + (f".p/{width}" if width < WIDTH else "")


def tile_width(level: int, index: int, size: int) -> int:
    """How many hashes a tile has in the tree of `size` leaves; 0 if there is no such tile."""
    return max(0, min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH))


def subtrees_of(read: ReadTile, size: int) -> Subtrees:
    """The complete subtrees of a tree in tiles. They raise KeyError if a tile is missing, ValueError if one is cut."""
    tiles_read: dict[tuple[int, int], bytes] = {}

    def tile(level: int, index: int) -> bytes:
        content = tiles_read.get((level, index))
        if content is None:
            width = tile_width(level, index, size)
            path = tile_path(level, index, width)
            content = read(path)
            if len(content) != width * HASH_BYTES:
                message = f"{path} has {len(content)} bytes, not {width * HASH_BYTES}"
                raise ValueError(message)
            tiles_read[level, index] = content
        return content

    def subtree(level: int, index: int) -> bytes:
        stored, above = divmod(level, HEIGHT)
        first = index << above
        content = tile(stored, first // WIDTH)
        place = first % WIDTH
        return folded(hashes_of(content[place * HASH_BYTES : (place + (1 << above)) * HASH_BYTES]))

    return subtree


def hashes_of(content: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)]


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of an entry bundle."""
    return b"".join(_ENTRY_LENGTH.pack(len(entry)) + entry for entry in entries)


def entries_of(content: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ValueError for one that is cut."""
    entries: list[bytes] = []
    at = 0
    while at < len(content):
        if at + _ENTRY_LENGTH.size > len(content):
            break
        (length,) = _ENTRY_LENGTH.unpack_from(content, at)
        at += _ENTRY_LENGTH.size
        entries.append(content[at : at + length])
        at += length
    if at != len(content):
        message = "an entry bundle was cut"
        raise ValueError(message)
    return entries


def grown(read: ReadTile, size: int, entries: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each tile that a tree of `size` leaves gains by these entries, entry bundles first.

    Partial tiles are given for the new size alone. The same tree gives the same tiles, however it was cut into steps.
    """
    last = size % WIDTH
    before = entries_of(read(tile_path(ENTRIES, size // WIDTH, last))) if last else []
    yield from _tiles(ENTRIES, size - last, [*before, *entries], entry_bundle)
    level, added = 0, [leaf_hash(entry) for entry in entries]
    while added:
        count = size >> (HEIGHT * level)
        last = count % WIDTH
        stored = hashes_of(read(tile_path(level, count // WIDTH, last))) if last else []
        row = [*stored, *added]
        yield from _tiles(level, count - last, row, b"".join)
        full = len(row) - len(row) % WIDTH
        added = [folded(row[at : at + WIDTH]) for at in range(0, full, WIDTH)]
        level += 1


def _tiles(
    level: int | str, first: int, row: Sequence[bytes], written: Callable[[Sequence[bytes]], bytes]
) -> Iterator[tuple[str, bytes]]:
    for at in range(0, len(row), WIDTH):
        content = row[at : at + WIDTH]
        yield tile_path(level, (first + at) // WIDTH, len(content)), written(content)
