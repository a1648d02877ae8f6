"""The paths of a tree's tiles, as the format defines them."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.streams.evidence.tiles import HEIGHT, WIDTH, tile_path, tile_width


def paths_of(size: int) -> Iterator[str]:
    """The paths of all hash tiles of a tree, level by level."""
    level = 0
    while size >> (HEIGHT * level):
        count = size >> (HEIGHT * level)
        for index in range(-(-count // WIDTH)):
            yield tile_path(level, index, tile_width(level, index, size))
        level += 1
