"""A store of blobs in memory from which a test can remove blobs."""

from __future__ import annotations

import hashlib

from coordinator.streams.events import Blob
from coordinator.streams.log.errors import BlobLostError


class Shelf:
    """Blobs by name. A name that is not there raises as a lost blob does."""

    def __init__(self, **blobs: bytes) -> None:
        self.kept = blobs
        self._altered: set[str] = set()

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.kept[sha256] = content
        return sha256

    def lose(self, sha256: str, why: str = "missing") -> None:
        """Makes the blob `missing` or `altered`."""
        if why == "altered":
            self._altered.add(sha256)
        else:
            del self.kept[sha256]

    def read(self, blob: Blob) -> bytes:
        if blob.sha256 in self._altered:
            raise BlobLostError(f"blob {blob.sha256} is altered")
        if blob.sha256 not in self.kept:
            raise BlobLostError(f"blob {blob.sha256} is missing")
        return self.kept[blob.sha256]
