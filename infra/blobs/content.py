"""What every store of blobs checks: a blob's size and hash, against what the log says of it."""

from __future__ import annotations

import hashlib
import re

from coordinator.streams.events import Blob
from coordinator.streams.log.errors import BlobLostError, OperatorError

BYTES_MAX = 512_000_000
"""The largest size of one blob."""
GIVEN_UP = "given-up"
"""Below a store: a file for each blob that the operator gave up, named by its SHA-256, with the reason."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def name_of(content: bytes) -> str:
    """The name under which a store keeps it: its SHA-256. Raises OperatorError for too many bytes."""
    if len(content) > BYTES_MAX:
        raise OperatorError(f"a blob of {len(content):,} bytes; the limit is {BYTES_MAX:,}")
    return hashlib.sha256(content).hexdigest()


def check_name(blob: Blob) -> str:
    """The name of a blob that may be read. Raises BlobLostError for one that is no hash, or too large."""
    if not _SHA256.fullmatch(blob.sha256):
        raise BlobLostError(f"blob {blob.sha256[:70]!r}: this is not a SHA-256")
    if blob.bytes > BYTES_MAX:
        raise BlobLostError(f"blob {blob.sha256} has {blob.bytes} bytes, and the limit is {BYTES_MAX}")
    return blob.sha256


def place_of_note(sha256: str) -> str:
    """Where in a store the note stands that a blob is given up. Raises OperatorError for what is not a SHA-256."""
    if not _SHA256.fullmatch(sha256):
        raise OperatorError(f"{sha256[:70]!r} is not a SHA-256: copy the 64 hex digits from the alert")
    return f"{GIVEN_UP}/{sha256}"


def checked(blob: Blob, content: bytes) -> bytes:
    """The content, if it is the blob's. Raises BlobLostError."""
    check_size(blob, len(content))
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        raise BlobLostError(f"blob {blob.sha256} is altered: its bytes have another SHA-256")
    return content


def check_size(blob: Blob, size_bytes: int) -> None:
    """Raises BlobLostError for a blob of another size."""
    if size_bytes != blob.bytes:
        raise BlobLostError(f"blob {blob.sha256} is altered: it does not have its {blob.bytes} bytes")
